"""Who may open connections to whom: what the roles and the settings need, and ``policy:``. Pure.

Within a domain every machine reaches the services of the others. The host reaches every machine; of
the host a machine reaches DNS and DHCP, which Incus itself lets through. The internet is reached as
the domain's ``egress`` says. All else is dropped at the bridge: other domains, the host's services,
its network. With ``global.ai_access: exclusive`` the bridge of the AI services lets in one of the
domains that ``policy:`` names (``stack.ai_access``).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from declaration.infra import TRUST_LEVELS
from declaration.internet import INTERNET
from declaration.policy import Flow, within
from declaration.settings import Settings
from declaration.topology import DomainPlan, MachinePlan, Topology, declared_devices
from declaration.urls import WEB_PORTS
from stack.ai_access import ai_access, reached_by, source_of
from stack.bypasses import Bypass, bypass_warnings, bypasses
from stack.checks import GATEWAY_ROLE, OLLAMA_ROLE, WEBUI_ROLE
from stack.role_rules import RoleRules

if TYPE_CHECKING:
    from stack.declare import Declaration

_URL = re.compile(r"https?://[^\s;,]+")
#: Settings whose URLs machines open connections to.
_REACHED = ("stt:sources.", "stt:webui.ollama_url", "stt:webui.stt_url", "stt:gateway.servers")
#: Settings from which something is only fetched.
_FETCHED = ("stt:sources.", "stt:ollama.models")
#: Settings that are about one role, by how they begin; the others are about all machines.
_ROLES = {
    "stt:gateway.": GATEWAY_ROLE,
    "stt:ollama.": OLLAMA_ROLE,
    "stt:webui.": WEBUI_ROLE,
}
_ANYWHERE = "0.0.0.0/0"
#: Where a proxy device of Incus with ``nat`` leads to.
_CONNECT = re.compile(r"(?P<protocol>tcp|udp):(?P<address>[\d.]+):(?P<port>\d+)")


@dataclass(frozen=True)
class Border:
    """What the machines of a domain may open, and what may be opened to them.

    ``install`` is what they may open besides while `up` installs something. ``ai`` is what other
    domains may open to its AI services, where one of them may at a time; the others' are held.
    ``closed`` is the domain's name, where it never reaches the internet. ``bypasses`` are devices
    that get a machine past the bridge, whatever the rest says.
    """

    egress: tuple[Flow, ...]
    ingress: tuple[Flow, ...]
    install: tuple[Flow, ...] = ()
    ai: tuple[Flow, ...] = ()
    closed: str = ""
    bypasses: tuple[Bypass, ...] = ()

    @property
    def shown(self) -> list[str]:
        """Each once, in words."""
        found = [str(flow) for flow in dict.fromkeys((*self.ingress, *self.ai, *self.egress))]
        found += [f"{flow} (while up installs)" for flow in self.install]
        found += map(str, self.bypasses)
        nothing = self.closed and not any(each.internet for each in self.bypasses)
        return found + ([f"{self.closed} -> internet: nothing"] if nothing else [])


def borders(declaration: Declaration, roles: Mapping[str, RoleRules]) -> dict[str, Border]:
    """The border of every domain, by the domain's name."""
    topology, settings = declaration.topology, declaration.settings
    flows = [*named_flows(topology, settings), *topology.policy]
    for domain in topology.domains:
        flows += _own(domain, topology, settings, roles)
    exclusive: set[Flow] = set()
    if access := ai_access(settings, topology):
        flows = [access.marked(flow) for flow in flows]
        exclusive = {flow for each in access.flows.values() for flow in each}
    return {
        domain.name: replace(_border(domain, flows, exclusive), bypasses=tuple(bypasses(domain)))
        for domain in topology.domains
    }


def _border(domain: DomainPlan, flows: Sequence[Flow], exclusive: Collection[Flow]) -> Border:
    """``exclusive``: what the bridge at which it ends lets in for one domain at a time."""
    out = [flow for flow in flows if within(flow.sources, domain)]
    into = [flow for flow in flows if within(flow.destinations, domain)]
    to = tuple(flow for flow in into if flow not in exclusive)
    ai = tuple(flow for flow in into if flow in exclusive)
    if domain.domain.egress == "open":
        return Border(tuple(out), to, ai=ai)
    fetched = [flow for flow in out if _is_fetched_from(flow)]
    rest = tuple(flow for flow in out if flow not in fetched)
    if domain.domain.egress == "closed":
        return Border(rest, to, ai=ai, closed=domain.name)
    web = tuple(sorted(WEB_PORTS.values()))
    install = [
        replace(flow, protocol="tcp", ports=web) if flow.destinations == INTERNET else flow
        for flow in fetched
    ]
    return Border(rest, to, tuple(install), ai)


def _is_fetched_from(flow: Flow) -> bool:
    """Whether a flow is only to install something."""
    return flow.destinations == INTERNET or flow.why.startswith(_FETCHED)


def _own(
    domain: DomainPlan, topology: Topology, settings: Settings, roles: Mapping[str, RoleRules]
) -> Iterator[Flow]:
    own, gateway = str(domain.subnet), f"{domain.gateway}/32"
    yield Flow(("host", domain.name), (gateway,), (own,), "the host")
    yield Flow((domain.name, "internet"), (own,), INTERNET, "the internet")
    for machine in domain.machines:
        address, names = f"{machine.address}/32", (domain.name, machine.full_name)
        ports = {p for role in machine.roles for p in roles[role].listens(settings).values()}
        if ports:
            why = f"services of {machine.name}"
            yield Flow(names, (own,), (address,), why, "tcp", tuple(sorted(ports)))
        for name, (protocol, to, port) in published(domain, machine).items():
            links = [link for link in topology.links_to(machine) if link.device == name]
            asking = tuple(dict.fromkeys(f"{each.asking} ({each.source})" for each in links))
            sources = tuple(dict.fromkeys(f"{each.source}/32" for each in links))
            names = (", ".join(asking) or "anywhere", machine.full_name)
            yield Flow(
                names, sources or (_ANYWHERE,), (f"{to}/32",), f"device {name}", protocol, (port,)
            )


def published(domain: DomainPlan, machine: MachinePlan) -> dict[str, tuple[str, str, int]]:
    """Where the proxy devices lead to that keep the addresses of those who ask (``nat``)."""
    found = {
        name: _CONNECT.fullmatch(device.get("connect", ""))
        for name, device in declared_devices(domain.domain, machine.machine).items()
        if device.get("type") == "proxy" and device.get("nat") == "true"
    }
    return {
        name: (to["protocol"], to["address"], int(to["port"])) for name, to in found.items() if to
    }


def named_flows(topology: Topology, settings: Settings) -> Iterator[Flow]:
    """To the addresses that settings name; where one names a host by its name, nobody knows it."""
    links = {(each.setting, each.address, each.port): each.to for each in topology.links}
    for domain in topology.domains:
        if not any(machine.roles for machine in domain.machines):
            continue
        for setting, address, port in named_addresses(settings):
            roles = [role for name, role in _ROLES.items() if setting.startswith(name)]
            if not all(topology.with_role(role, domain.name) for role in roles):
                continue
            if address not in domain.subnet or address == domain.gateway:
                link = links.get((setting, address, port))
                names = (domain.name, f"{link} ({address})" if link else str(address))
                to, why = f"{address}/32", f"services of {link}" if link else setting
                yield Flow(names, (str(domain.subnet),), (to,), why, "tcp", (port,))


def named_addresses(settings: Settings) -> list[tuple[str, IPv4Address, int]]:
    """The addresses in URLs that machines ask: the setting, the address and the port."""
    found: list[tuple[str, IPv4Address, int]] = []
    for setting, url in named_urls(settings):
        try:
            parts = urlsplit(url)
            address = IPv4Address(parts.hostname or "")
            port = parts.port or WEB_PORTS[parts.scheme]
        except ValueError:
            continue  # a name
        if not address.is_loopback:
            found.append((setting, address, port))
    return list(dict.fromkeys(found))  # Incus takes no rule twice


def named_urls(settings: Settings) -> Iterator[tuple[str, str]]:
    """The URLs that machines ask, each with the setting that has it."""
    for setting, text in _texts("stt", settings.model_dump(mode="json")):
        for url in _URL.findall(text) if setting.startswith(_REACHED) else ():
            yield setting, url
    # Without a slash it is a model of Ollama's own registry, which has no address here.
    for registry, slash, _ in (model.partition("/") for model in settings.ollama.models):
        if slash:
            yield "stt:ollama.models", f"https://{registry}"


def _texts(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(f"{name}{'.' if ':' in name else ':'}{key}", item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(name, item)
    elif isinstance(value, str):
        yield name, value


def _is_never_held(flow: Flow, topology: Topology) -> bool:
    """Whether a way to AI services comes from elsewhere than a domain."""
    return source_of(flow, topology) is None and bool(reached_by(flow, topology))


def warnings(topology: Topology) -> list[str]:
    """Rules of ``policy:`` that let somebody reach what is trusted more, or others do not hold.

    And devices that no rule holds.
    """
    levels = {each.written: each.domain.trust_level for each in topology.domains}
    found: list[str] = []
    for flow in topology.policy:
        if topology.ai_access == "exclusive" and _is_never_held(flow, topology):
            found.append(
                f"{flow.why} lets {flow.names[0]} reach {flow.names[1]} whoever has the AI access: "
                "global.ai_access is about the domains of the topology."
            )
        source, to = (levels.get(name.partition("/")[0]) for name in flow.names)
        trusted = TRUST_LEVELS.index
        if to and trusted(source or TRUST_LEVELS[-1]) > trusted(to):
            level = source or "of no domain"
            found.append(f"{flow.why} lets {flow.names[0]} ({level}) reach {flow.names[1]} ({to}).")
    return found + [text for domain in topology.domains for text in bypass_warnings(domain)]
