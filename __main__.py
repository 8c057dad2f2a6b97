"""infra.yml and the stack's configuration, checked, as resources."""

from __future__ import annotations

from pathlib import Path

import pulumi

from components import gpu
from components.command import Host
from components.config import fail, read_config
from components.deployment import Deployment, contexts
from components.kept_values import stack_id
from components.obstacles import obstacles, other_stacks
from components.report import report
from components.state import read_state
from declaration.problems import DeclarationError
from host.client import HostError
from host.read import Live, read_live
from roles import ROLES
from stack.declare import Declaration, declare

ROOT = Path(__file__).resolve().parent


def read_host(declaration: Declaration) -> Live | None:
    """The host as it is; a preview goes on without one.

    Raises:
        HostError: the host cannot be read, and something is to be changed there.
    """
    settings = declaration.settings
    machines: dict[tuple[str, str], dict[str, str]] = {
        (machine.domain, machine.name): {} for machine in declaration.topology.machines
    }
    for role, context in contexts(declaration):
        place = (context.machine.domain, context.machine.name)
        machines[place] |= ROLES[role].probes(context)
    try:
        return read_live(settings.host_connection, settings.pool, machines)
    except HostError as error:
        if not pulumi.runtime.is_dry_run():
            raise
        pulumi.log.warn(f"Drift was not checked. {error.user_message}")
        return None


def main() -> None:
    """Declare, check against the host, register, export."""
    try:
        declaration = declare(read_config(), ROLES, ROOT)
        topology, settings = declaration.topology, declaration.settings
        live = read_host(declaration)
        host = Host(settings.host_connection, live, read_state(), former_name=topology.former_name)
        if live and (
            problems := [
                *obstacles(declaration, live),
                *other_stacks(declaration, host),
                *gpu.obstacles(declaration, live),
            ]
        ):
            raise DeclarationError(problems)
        declaration = gpu.plan(declaration, live)
    except (DeclarationError, HostError) as error:
        raise fail(error) from None
    host.stack = stack_id(host, settings.protect)
    deployment = Deployment(declaration, host)
    report(host.drift)
    for name, value in deployment.outputs().items():
        pulumi.export(name, value)


main()
