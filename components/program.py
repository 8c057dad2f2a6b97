"""The whole program: declare, check against the host, register, export."""

from __future__ import annotations

import os
from pathlib import Path

import pulumi

from components import disks, firewall, gpu, idmap, images, inotify
from components.command import Host
from components.config import fail, read_config
from components.deployment import Deployment
from components.obstacles import obstacles, other_owners
from components.placement import double_addresses, place, published_wrongly, unreachable
from components.report import report
from components.short_stacks import short_stacks
from components.start import Start
from declaration.artifacts import locked
from declaration.connection import UNREAD
from declaration.problems import DeclarationError, Problem
from host.client import HostError
from host.read import Live
from host.reading import Reading
from roles import ROLES
from stack.declare import Declaration, declare
from stack.idle_settings import idle_settings
from stack.outside_names import outside_names
from stack.published import environment_conflicts
from stack.replicas import separate_services
from stack.spans import spans
from stack.unencrypted import unencrypted

ROOT = Path(__file__).resolve().parent.parent


def read_host(reading: Reading | HostError | None) -> Live | None:
    """The host as it is; a preview goes on without one.

    Raises:
        HostError: the host cannot be read, and something is to be changed there.
    """
    try:
        if isinstance(reading, HostError):
            raise reading
        return reading.result() if reading else None
    except HostError as error:
        if not pulumi.runtime.is_dry_run():
            raise
        pulumi.log.warn(f"Drift was not checked. {error.user_message}")
        return None


def _unfiltered(declaration: Declaration, live: Live | None) -> list[str]:
    """Domains whose machines reach all ports of each other, whatever the ACL says."""
    several = [each.name for each in declaration.topology.domains if len(each.machines) > 1]
    if not several or live is None or live.filters_bridges is not False:
        return []
    return [
        f"Within {', '.join(several)} every machine reaches every port of the others: the host's "
        "kernel does not show its firewall what goes through a bridge. To have it filtered: "
        "modprobe br_netfilter (docs/security.md)."
    ]


def main(start: Start) -> None:
    """Run it.

    Raises:
        pulumi.RunError: something is wrong with the configuration, or stands in the way.
    """
    try:
        declaration = declare(read_config(), ROLES, ROOT)
        locked()  # before anything is registered: what is installed comes from it
        topology, settings = declaration.topology, declaration.settings
        for problem in [
            *idle_settings(declaration, ROLES),
            *environment_conflicts(settings, topology, settings.infra),
        ]:
            pulumi.log.warn(str(problem))
        live = read_host(start.reading)
        host = Host(
            settings.host_connection,
            live,
            start.state,
            kept_id=start.kept_id,
            adopt=settings.adopt,
            former_name=topology.former_name,
            compared=bool(os.environ.get(UNREAD)),
        )
        problems: list[Problem] = []
        host.placement = place(declaration, live, host.outputs, problems)
        if live:
            problems += [
                *obstacles(declaration, live),
                *other_owners(declaration, host),
                *idmap.obstacles(declaration, live, host.placement),
                *gpu.obstacles(declaration, live, host.placement),
                *unreachable(declaration, host.placement),
                *published_wrongly(declaration, live, host.placement),
                *double_addresses(declaration, live),
            ]
            if problems:
                raise DeclarationError(problems)
        declaration = gpu.plan(declaration, host)
    except (DeclarationError, HostError) as error:
        raise fail(error) from None
    with short_stacks():
        deployment = Deployment(declaration, host)
    for warning in [
        *deployment.warnings(),
        *outside_names(settings, topology),
        *images.warnings(declaration, host),
        *_unfiltered(declaration, live),
        *firewall.warnings(declaration, host),
        *(idmap.warnings(declaration, live) if live else ()),
        *(inotify.warnings(declaration, live, host.placement) if live else ()),
        *(disks.warnings(declaration, live) if live else ()),
    ]:
        pulumi.log.warn(warning)
    for line in [*separate_services(settings, topology), *deployment.notes()]:
        pulumi.log.info(line)
    for span in spans(topology, host.placement.members):
        (pulumi.log.info if span.trusted else pulumi.log.warn)(span.text)
    for each in unencrypted(settings, topology):
        (pulumi.log.info if each.trusted else pulumi.log.warn)(str(each))
    if live:  # else nobody knows, and no report tells so
        report(host.drift)
    for name, value in deployment.outputs().items():
        pulumi.export(name, value)
