"""infra.yml and the stack's configuration, checked, as resources."""

from pathlib import Path

from components.config import fail, read_config
from components.domain import Domain
from components.live import HostError, obstacles, read_live
from components.outputs import export
from components.roles import ROLES, Shared
from declaration.declare import STT_ROLE, declare
from declaration.problems import DeclarationError

ROOT = Path(__file__).resolve().parent


def main() -> None:
    """Declare, check against the host, register, export."""
    try:
        declaration = declare(read_config(ROOT), ROLES, ROOT)
        problems = obstacles(declaration, read_live(declaration.settings.where))
        if problems:
            raise DeclarationError(problems)
    except (DeclarationError, HostError) as error:
        raise fail(error) from None
    settings, topology = declaration.settings, declaration.topology
    shared = Shared(settings)
    if topology.having(STT_ROLE):
        _ = shared.stt_key  # made in any case, so that it outlives a time of stt:enabled=false
    domains = [Domain(plan, settings, topology, shared) for plan in topology.domains]
    export(settings, domains)


main()
