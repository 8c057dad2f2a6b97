"""Domains on several members of a cluster: what one part of them asks another one. Pure.

Machines of two parts have no bridge in common. A service that another part uses is published at its
member's address by a proxy device, and who asks it does so there, as if a setting named that URL.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from itertools import chain

from declaration.problems import DeclarationError, Problem, show
from declaration.settings import Settings
from declaration.topology import DomainPlan, Link, MachinePlan, Topology
from declaration.urls import ollama_url
from stack.asked import asked_services
from stack.checks import GATEWAY_ROLE, OLLAMA_ROLE, STT_ROLE, WEBUI_ROLE
from stack.gateway import gateway_runs
from stack.listening import ends, is_proxy, listens_inside

#: The proxy devices that are made here, by the role of the service that each publishes.
DEVICES = {
    STT_ROLE: "members-stt",
    GATEWAY_ROLE: "members-gateway",
    OLLAMA_ROLE: "members-ollama",
}
_SERVERS, _STT, _OLLAMA = "stt:gateway.servers", "stt:webui.stt_url", "stt:webui.ollama_url"
#: The role of who asks, by the setting that would name the service.
_ASKING = {_SERVERS: GATEWAY_ROLE, _STT: WEBUI_ROLE, _OLLAMA: WEBUI_ROLE}
_LAST_PORT = 65535


@dataclass(frozen=True)
class _Use:
    """A machine asks the service of a role on another one, at a URL such as ``setting`` takes."""

    setting: str
    asking: MachinePlan
    to: MachinePlan
    role: str


def linked(settings: Settings, topology: Topology, file: str) -> Topology:
    """The topology with the links between the parts of its domains.

    ``file`` is how messages call it.

    Raises:
        DeclarationError: a member has no port left at which a service could be published.
    """
    spanning = [parts[0].name for parts in _spanning(topology)]
    uses = [use for domain in spanning for use in _uses(settings, topology, domain)]
    ports = _ports(settings, topology, uses, file)
    members = {each.name: each.member for each in topology.domains}

    def address(machine: MachinePlan) -> IPv4Address:
        return topology.members[members[machine.domain]]

    def link(use: _Use) -> Link:
        at, port = address(use.to), ports[use.to.full_name, use.role]
        path = "/v1" if use.setting == _STT else ""
        return Link(
            use.setting,
            f"http://{at}:{port}{path}",
            use.asking.full_name,
            address(use.asking),
            use.to.full_name,
            DEVICES[use.role],
            at,
            port,
        )

    return replace(topology, links=tuple(map(link, uses)))


def _spanning(topology: Topology) -> list[list[DomainPlan]]:
    """The domains on several members, each with its parts."""
    every = (topology.parts_of(each.name) for each in topology.domains if not each.part_of)
    return [parts for parts in every if len(parts) > 1]


def _uses(settings: Settings, topology: Topology, domain: str) -> Iterator[_Use]:
    """What the machines of a domain ask in its other parts; what settings name is not here."""
    servers, gateways, ollamas, webuis = (
        topology.with_role_in_parts(role, domain)
        for role in (STT_ROLE, GATEWAY_ROLE, OLLAMA_ROLE, WEBUI_ROLE)
    )
    for gateway in gateways[:1] if settings.enabled else ():
        for server in servers:
            if server.domain != gateway.domain:
                yield _Use(_SERVERS, gateway, server, STT_ROLE)
    for webui in webuis[:1]:
        if settings.webui.stt_url is None:
            role = GATEWAY_ROLE if gateways else STT_ROLE
            runs = gateway_runs(settings) if gateways else settings.enabled
            there = (gateways or servers) if runs else []
            # Without a gateway it is a server of its own part, or else the first one.
            if there and webui.domain not in [each.domain for each in there]:
                yield _Use(_STT, webui, there[0], role)
        if settings.webui.ollama_url is None:
            for ollama in ollamas:
                if ollama.domain != webui.domain:
                    yield _Use(_OLLAMA, webui, ollama, OLLAMA_ROLE)


def _port(settings: Settings, role: str) -> int:
    """The port of a role's service in its machine."""
    own = {STT_ROLE: settings.port, GATEWAY_ROLE: settings.gateway.port}
    return own.get(role, settings.ollama.port)


def _ports(
    settings: Settings, topology: Topology, uses: Sequence[_Use], file: str
) -> dict[tuple[str, str], int]:
    """The port of its member at which each service is published, by machine and role.

    It is the service's own, or the next one that nothing of the topology has there; after the last
    port, those below. Machines that ``count`` adds come last: another count changes no other port.
    """
    wanted = {(each.to.full_name, each.role) for each in uses}
    taken: dict[str, set[int]] = {}
    for domain in topology.domains:
        taken.setdefault(domain.member, set()).update(_published(settings, topology, domain))
    found: dict[tuple[str, str], int] = {}
    for domain in topology.domains:
        there = taken[domain.member]
        for machine in sorted(domain.machines, key=lambda each: each.name != each.written):
            for role in DEVICES:
                if (place := (machine.full_name, role)) in wanted:
                    first = min(domain.environment.port(_port(settings, role)), _LAST_PORT)
                    up, down = range(first, _LAST_PORT + 1), range(first - 1, 0, -1)
                    port = next((each for each in chain(up, down) if each not in there), None)
                    if port is None:
                        raise DeclarationError([_no_port(machine, domain, file)])
                    there.add(port)
                    found[place] = port
    return found


def _no_port(machine: MachinePlan, domain: DomainPlan, file: str) -> Problem:
    message = (
        f"is asked from other members, and no port of {domain.member} is left: the proxy devices "
        "of the topology have all. Let them listen on fewer ports."
    )
    return Problem(f"{file}: {machine.place}", message)


def _published(settings: Settings, topology: Topology, domain: DomainPlan) -> Iterator[int]:
    """The ports of its host that a domain has for what the operator publishes."""
    for machine in domain.machines:
        if WEBUI_ROLE in machine.roles and settings.webui.publish:
            yield int(settings.webui.publish.rpartition(":")[2])
        for device in topology.devices_of(machine).values():
            if is_proxy(device) and not listens_inside(device):
                yield from (port for _, port in ends(device.get("listen", "")))


def with_devices(settings: Settings, topology: Topology) -> Topology:
    """The topology whose machines have the proxy devices of its links."""
    roles = {device: role for role, device in DEVICES.items()}

    def published(plan: MachinePlan) -> MachinePlan:
        made = {
            each.device: {
                "type": "proxy",
                "listen": f"tcp:{each.address}:{each.port}",
                "connect": f"tcp:{plan.address}:{_port(settings, roles[each.device])}",
                # The bridge sees who asks, and lets in those members only.
                "nat": "true",
            }
            for each in topology.links_to(plan)
        }
        devices = {**plan.machine.devices, **made}
        return replace(plan, machine=plan.machine.model_copy(update={"devices": devices}))

    domains = [
        replace(each, machines=tuple(map(published, each.machines))) for each in topology.domains
    ]
    return replace(topology, domains=tuple(domains))


def with_urls(settings: Settings, topology: Topology) -> Settings:
    """The settings with the URLs of the links, beside what the operator names."""
    urls: dict[str, list[str]] = {setting: [] for setting in _ASKING}
    for each in topology.links:
        urls[each.setting].append(each.url)
    gateway, webui = settings.gateway, settings.webui
    if servers := urls[_SERVERS]:
        every = list(dict.fromkeys([*servers, *gateway.servers]))
        gateway = gateway.model_copy(update={"servers": every})
    if urls[_STT]:
        webui = webui.model_copy(update={"stt_url": urls[_STT][0]})
    if urls[_OLLAMA]:
        [asking, *_] = [each.asking for each in topology.links if each.setting == _OLLAMA]
        [domain] = [each.domain for each in topology.machines if each.full_name == asking]
        near = [ollama_url(settings, each) for each in topology.with_role(OLLAMA_ROLE, domain)]
        webui = webui.model_copy(update={"ollama_url": ";".join([*near, *urls[_OLLAMA]])})
    return settings.model_copy(update={"gateway": gateway, "webui": webui})


def span_problems(settings: Settings, topology: Topology, file: str) -> list[Problem]:
    """What keeps the parts of a domain from reaching each other, or would let in others.

    ``settings`` are the operator's; ``topology`` has the links. ``file`` is how messages call it.
    """
    spanning = [parts[0].name for parts in _spanning(topology)]
    problems: list[Problem] = []
    if spanning and topology.ai_access == "exclusive":
        message = (
            f"is exclusive, and {', '.join(spanning)} is on several members, whose services are "
            "published between them: who takes turns is told apart at a bridge only. Set it to "
            "open, or give all machines of each domain one member."
        )
        problems.append(Problem(f"{file}: global.ai_access", message))
    for link in topology.links:
        if link.device == DEVICES[STT_ROLE] and settings.host.is_loopback:
            message = (
                f'"{settings.host}" is reached only inside {link.to}, and {link.asking} asks from '
                "another member. Use 0.0.0.0."
            )
            problems.append(Problem("stt:host", message))
        if link.device == DEVICES[GATEWAY_ROLE] and settings.gateway.secure:
            message = (
                f"is {show(settings.gateway.tls)}, and Open WebUI on {link.asking} asks from "
                f"another member, where it does not trust the gateway's certificate. Give it the "
                f"member of {link.to}, set stt:gateway.tls to none, or name a service in "
                "stt:webui.stt_url."
            )
            problems.append(Problem("stt:gateway.tls", message))
    problems += _on_bridges(settings, topology)
    return list(dict.fromkeys([*problems, *_asking_too(topology, file)]))


def leave_out(setting: str, asking: str) -> str:
    """What to do where a setting names a machine of another part."""
    what = "Remove it there" if setting == _SERVERS else "Leave the setting out"
    return f"{what}: {asking} gets the address at which its member publishes it."


def _on_bridges(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """URLs with the address that a machine has on the bridge of another part."""
    for asked in asked_services(settings, topology):
        for asking in asked.by:
            for part in topology.parts_of(asking.domain):
                for machine in part.machines:
                    if part.name != asking.domain and str(machine.address) == asked.host:
                        message = (
                            f"{show(asked.url)} is on the bridge of {machine.full_name}, which is "
                            f"on another member than {asking.name}, and does not reach from one "
                            f"member to another. {leave_out(asked.setting, asking.name)}"
                        )
                        yield Problem(asked.setting, message)


def _asking_too(topology: Topology, file: str) -> Iterator[Problem]:
    """Machines of other domains that the URLs of the links would be for as well."""
    machines = {each.full_name: each for each in topology.machines}
    for link in topology.links:
        role, own = _ASKING[link.setting], machines[link.asking]
        parts = [each.name for each in topology.parts_of(own.domain)]
        for each in topology.with_role(role):
            if each.domain not in parts:
                message = (
                    f"{role} is on {each.full_name} and on {own.full_name}, whose domain is on "
                    "several members: what is published for the one would be asked by the other "
                    "too. Give one of the two domains a stack of its own."
                )
                yield Problem(f"{file}: {each.place}.roles", message)


@dataclass(frozen=True)
class Span:
    """What the operator should know of a domain on several members.

    ``trusted``: all that its parts ask each other stays in ``global.trusted_networks``.
    """

    text: str
    trusted: bool


def spans(topology: Topology, members: Mapping[str, str]) -> Iterator[Span]:
    """Each domain on several members; ``members`` has the member of each part, by its name."""
    for home, *parts in _spanning(topology):
        names = [home.name, *(each.name for each in parts)]
        domains = {each.full_name: each.domain for each in topology.machines}
        links = [each for each in topology.links if domains[each.to] in names]
        where = [f"{members.get(home.name, home.member)}"] if home.machines else []
        where += [f"{members.get(each.name, each.member)} as {each.name}" for each in parts]
        text = f"{home.name} is on several members: {', '.join(where)}."
        if not links:
            yield Span(f"{text} No part asks another one.", trusted=True)
            continue
        asked = ", ".join(f"{each.asking} asks {each.to} at {each.url}" for each in links)
        text += f" Its parts reach each other at the members' own addresses, not by OVN: {asked}. "
        hosts = dict.fromkeys(host for each in links for host in (each.source, each.address))
        networks = {host: [n for n in topology.trusted_networks if host in n] for host in hosts}
        if all(networks.values()):
            over = ", ".join(dict.fromkeys(str(found[0]) for found in networks.values()))
            text += f"This is not encrypted, over {over}, which global.trusted_networks names."
            yield Span(text, trusted=True)
        else:
            text += (
                "This is not encrypted: whoever is on the way can read recordings, chats and keys. "
                "If you trust the network between the members, name it in global.trusted_networks."
            )
            yield Span(text, trusted=False)
