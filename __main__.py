"""infra.yml and the stack's configuration, checked, as resources."""

from pathlib import Path

import pulumi

from components import drift, gpu
from components.config import fail, read_config
from components.domain import Domain
from components.live import HostError, obstacles, read_live
from components.outputs import export
from components.roles import ROLES, Shared
from declaration.declare import STT_ROLE, Declaration, declare
from declaration.problems import DeclarationError

ROOT = Path(__file__).resolve().parent


def check_host(declaration: Declaration) -> Declaration:
    """Find what stands in the way, what fits, what has drifted; the declaration with its choices.

    A preview goes on without a host.
    """
    settings, facts = declaration.settings, drift.all_facts(declaration)
    try:
        live = read_live(settings.host_connection, settings.pool, facts, gpu.probes(declaration))
    except HostError as error:
        if not pulumi.runtime.is_dry_run():
            raise
        pulumi.log.warn(f"Drift was not checked. {error.user_message}")
        drift.mark({}, declaration.topology)
        return gpu.plan(declaration, None)
    if problems := [*obstacles(declaration, live), *gpu.gpu_obstacles(declaration, live)]:
        raise DeclarationError(problems)
    declaration = gpu.plan(declaration, live)
    found = drift.differences(declaration, live)
    drift.report(found)
    drift.mark(found, declaration.topology)
    return declaration


def main() -> None:
    """Declare, check against the host, register, export."""
    try:
        declaration = declare(read_config(), ROLES, ROOT)
        declaration = check_host(declaration)
    except (DeclarationError, HostError) as error:
        raise fail(error) from None
    settings, topology = declaration.settings, declaration.topology
    shared = Shared(settings)
    if topology.having(STT_ROLE):
        _ = shared.stt_key  # made in any case, so that it outlives a time of stt:enabled=false
    domains = [Domain(plan, settings, topology, shared) for plan in topology.domains]
    export(settings, domains)


main()
