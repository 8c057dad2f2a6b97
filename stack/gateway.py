"""The STT servers behind a gateway, and what is wrong with them. Pure."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from declaration.gateway import gateway_tls_problems, server_address
from declaration.problems import Problem, show
from declaration.settings import Settings
from declaration.tls import is_for
from declaration.topology import MachinePlan, Topology
from declaration.urls import gateway_host, stt_host
from stack.checks import GATEWAY_ROLE, STT_ROLE
from stack.listening import is_proxy

#: Where a proxy device listens.
_LISTEN = re.compile(r"tcp:(?P<address>[\d.]+):(?P<port>\d+)")


@dataclass(frozen=True)
class GatewayServer:
    """An STT server: its machine's name, or address and port where it is of no machine here."""

    name: str
    address: str
    port: int


def gateway_runs(settings: Settings) -> bool:
    """Whether a gateway has something to stand before: this stack's servers, or others."""
    return settings.enabled or bool(settings.gateway.servers)


def gateway_servers(
    settings: Settings, topology: Topology, gateway: MachinePlan
) -> list[GatewayServer]:
    """The servers of the gateway's domain, then those of ``stt:gateway.servers``."""
    own = topology.with_role(STT_ROLE, gateway.domain) if settings.enabled else []
    found = [
        GatewayServer(each.name, stt_host(settings, str(each.address)), settings.port)
        for each in own
    ]
    for url in settings.gateway.servers:
        address, port = server_address(url)
        found.append(GatewayServer(f"{address}:{port}", address, port))
    return found


def gateways_before(
    settings: Settings, topology: Topology, machine: MachinePlan
) -> list[MachinePlan]:
    """The gateways that ask a machine's STT server.

    That of its domain, and those of others where ``stt:gateway.servers`` has an address at which a
    proxy device publishes it: servers on several members of a cluster.
    """
    published = any(is_published_at(url, topology, machine) for url in settings.gateway.servers)
    return [
        gateway
        for gateway in topology.with_role(GATEWAY_ROLE)
        if published or gateway.domain == machine.domain
    ]


def is_published_at(url: str, topology: Topology, machine: MachinePlan) -> bool:
    """Whether one of ``stt:gateway.servers`` leads to a machine, by a proxy device of its own."""
    address, port = server_address(url)
    everywhere = ("0.0.0.0", port)  # noqa: S104  # compared, not bound
    return bool(_published(topology, machine) & {(address, port), everywhere})


def _published(topology: Topology, machine: MachinePlan) -> set[tuple[str, int]]:
    """The addresses and ports at which proxy devices publish what is in a machine."""
    listens = (
        _LISTEN.fullmatch(device.get("listen", ""))
        for device in topology.devices_of(machine).values()
        if is_proxy(device)
    )
    return {(found["address"], int(found["port"])) for found in listens if found}


def gateway_problems(settings: Settings, topology: Topology) -> list[Problem]:
    """Gateways without a server, with one that they cannot reach, or with one twice."""
    problems: list[Problem] = []
    for gateway in topology.with_role(GATEWAY_ROLE):
        servers = gateway_servers(settings, topology, gateway)
        if not servers and settings.enabled:
            message = (
                f"{GATEWAY_ROLE} has no server: no machine of the domain has the role {STT_ROLE}. "
                "Give it to one, or name servers in stt:gateway.servers."
            )
            problems.append(Problem(f"{gateway.place}.roles", message))
        problems += _unreachable(settings, topology, gateway) + _other_host(settings, gateway)
        counted = Counter((each.address, each.port) for each in servers)
        counted[str(gateway.address), settings.gateway.port] += 1  # it would ask itself
        for url in settings.gateway.servers:
            if counted[server_address(url)] > 1:
                message = (
                    f"has {show(url)}, which is a server of this stack, or the gateway itself. "
                    "Remove it: those are asked anyway."
                )
                problems.append(Problem("stt:gateway.servers", message))
    return problems


def _other_host(settings: Settings, gateway: MachinePlan) -> list[Problem]:
    """A certificate that clients would not take for the gateway's."""
    own, host = settings.gateway, gateway_host(settings, gateway)
    if own.tls != "files" or gateway_tls_problems(own):
        return []
    if is_for(own.certificate, own.certificateKey, host):
        return []
    message = (
        f"{show(own.certificate)} is not for {host}, as clients call the gateway. Begin "
        "stt:gateway.names with a name that it is for and that leads to the gateway, or name "
        "another certificate."
    )
    return [Problem("stt:gateway.certificate", message)]


def _unreachable(settings: Settings, topology: Topology, gateway: MachinePlan) -> list[Problem]:
    """Servers that answer only inside their own machines."""
    if not (settings.host.is_loopback and settings.enabled):
        return []
    others = [each for each in topology.with_role(STT_ROLE, gateway.domain) if each != gateway]
    if not others:
        return []
    message = (
        f'"{settings.host}" is reached only inside {", ".join(each.name for each in others)}, and '
        f"the gateway asks from {gateway.name}. Use 0.0.0.0."
    )
    return [Problem("stt:host", message)]
