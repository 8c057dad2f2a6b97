"""The STT servers behind a gateway, and what is wrong with them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from declaration.gateway import gateway_tls_problems, server_address
from declaration.problems import Problem, show
from declaration.settings import Settings
from declaration.tls import is_for
from declaration.topology import MachinePlan, Topology
from declaration.urls import gateway_host, is_loopback, stt_host
from stack.checks import GATEWAY_ROLE, STT_ROLE
from stack.leads import leads_to
from stack.listening import publishes
from stack.published import Publishing, is_any, publishing


@dataclass(frozen=True)
class GatewayServer:
    """An STT server: its machine's name, or address and port where it is of no machine here.

    ``health`` is the path that says whether it works, where it has no ``/ready``.
    """

    name: str
    address: str
    port: int
    health: str = "/health"


def gateway_runs(settings: Settings) -> bool:
    """Whether a gateway has something to stand before: this stack's servers, or others."""
    return settings.enabled or bool(settings.gateway.servers)


def gateway_servers(
    settings: Settings, topology: Topology, gateway: MachinePlan
) -> list[GatewayServer]:
    """The servers of the gateway's domain, then those of ``stt:gateway.servers``."""
    own = topology.with_role(STT_ROLE, gateway.domain) if settings.enabled else []
    health = settings.custom.health if settings.engine == "custom" else GatewayServer.health
    found = [
        GatewayServer(each.name, stt_host(settings, str(each.address)), settings.port, health)
        for each in own
    ]
    here = {(str(each.address), settings.port) for each in topology.with_role(STT_ROLE)}
    there = publishing(topology)
    for url in settings.gateway.servers:
        address, port = server_address(url)
        end = leads_to(url, gateway, topology, there)
        known = health if end in here else GatewayServer.health
        found.append(GatewayServer(f"{address}:{port}", address, port, known))
    return found


def gateways_before(
    settings: Settings, topology: Topology, machine: MachinePlan
) -> list[MachinePlan]:
    """The gateways that ask a machine's STT server, or may.

    That of its domain, and those of others where ``stt:gateway.servers`` leads to it, or may: such
    servers, on several members of a cluster, change one by one.
    """
    named = any(may_lead_to(url, settings, topology, machine) for url in settings.gateway.servers)
    return [
        gateway
        for gateway in topology.with_role(GATEWAY_ROLE)
        if named or gateway.domain == machine.domain
    ]


def servers_behind(
    settings: Settings, topology: Topology, gateway: MachinePlan
) -> list[MachinePlan]:
    """The machines of this stack whose STT servers a gateway asks, or may."""
    return [
        each
        for each in (topology.with_role(STT_ROLE) if settings.enabled else ())
        if gateway in gateways_before(settings, topology, each)
    ]


def nearest_behind(behind: Sequence[MachinePlan], gateway: MachinePlan) -> list[MachinePlan]:
    """Those of the gateway's own domain; all of them, where there are none.

    Another model, which all have, is tried through the gateway once these have it: it does not
    depend on a member that does not answer.
    """
    return [each for each in behind if each.domain == gateway.domain] or list(behind)


def may_lead_to(url: str, settings: Settings, topology: Topology, machine: MachinePlan) -> bool:
    """Whether one of ``stt:gateway.servers`` may lead to a machine's STT server.

    A device that listens on every address of its host publishes it at some that nobody knows here,
    so this is for what does no harm to servers of others.
    """
    address, port = server_address(url)
    end = str(machine.address), settings.port
    return (address, port) == end or any(
        at[1] == port and (at[0] == address or is_any(at[0])) and to == end
        for device in topology.devices_of(machine).values()
        for at, to in publishes(device, machine)
    )


def gateway_problems(settings: Settings, topology: Topology) -> list[Problem]:
    """Gateways without a server, with one that they cannot reach, or with one twice."""
    problems: list[Problem] = []
    for gateway in topology.with_role(GATEWAY_ROLE):
        if settings.enabled and not gateway_servers(settings, topology, gateway):
            message = (
                f"{GATEWAY_ROLE} has no server: no machine of the domain has the role {STT_ROLE}. "
                "Give it to one, or name servers in stt:gateway.servers."
            )
            problems.append(Problem(f"{gateway.place}.roles", message))
        problems += _unreachable(settings, topology, gateway) + _other_host(settings, gateway)
    return problems + server_problems(settings, topology, publishing(topology))


def server_problems(settings: Settings, topology: Topology, there: Publishing) -> list[Problem]:
    """Those of ``stt:gateway.servers`` that are a gateway of this stack, or asked anyway."""
    problems: list[Problem] = []
    gateways = topology.with_role(GATEWAY_ROLE)
    port, names = settings.gateway.port, settings.gateway.names if settings.gateway.secure else []
    for gateway in gateways:
        own = topology.with_role(STT_ROLE, gateway.domain) if settings.enabled else []
        taken = {
            (str(each.address), settings.port): (
                f"the STT server of {each.full_name}, which is behind the gateway already. Remove "
                "it: it would get twice its share of the requests."
            )
            for each in own
        }
        itself = "the gateway itself ({}), which would ask itself. Remove it."
        taken |= {
            (name, port): itself.format(f"{show(name)} in stt:gateway.names") for name in names
        }
        taken |= {(str(each.address), port): itself.format(each.full_name) for each in gateways}
        for url in settings.gateway.servers:
            address, its_port = server_address(url)
            end = leads_to(url, gateway, topology, there)
            if is_loopback(address) and STT_ROLE not in gateway.roles:
                continue  # stack/asked.py says that no server is there
            if what := taken.get(end):
                by = there.at(address, its_port)
                where = (
                    f"where the device {by.device} of {by.machine.full_name} publishes "
                    if by
                    else ""
                )
                message = f"has {show(url)}, {where or 'which is '}{what}"
                problems.append(Problem("stt:gateway.servers", message))
            taken.setdefault(end, f"the same server as {show(url)}. Remove one of them.")
    return list(dict.fromkeys(problems))


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
