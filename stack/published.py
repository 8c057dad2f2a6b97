"""What proxy devices publish on the hosts, and ports that two of them want. Pure.

A device that listens at 0.0.0.0 has every address of its host, and the file names few of these:
what leads to it is known for them only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address

from declaration.environment import PORTS
from declaration.problems import Problem, show
from declaration.settings import Settings
from declaration.topology import MachinePlan, Topology
from declaration.urls import is_loopback
from stack.checks import GATEWAY_ROLE, WEBUI_ROLE
from stack.listening import ends, is_proxy, listens_inside, place_of, publishes

_PUBLISH = "stt:webui.publish"


@dataclass(frozen=True)
class Hosts:
    """The host of each domain, by the domain's name, and addresses of hosts that are known.

    A host is the name of a member, "" where there is no cluster, or @DOMAIN where it is not known.
    """

    of: Mapping[str, str]
    addresses: Mapping[str, Collection[str]]


def declared_hosts(topology: Topology) -> Hosts:
    """What the file says: which member of a group it will be, only the cluster tells."""
    cluster = any(domain.member for domain in topology.domains)
    unknown = {
        domain.name
        for domain in topology.domains
        if cluster and (not domain.member or domain.member.startswith("@"))
    }
    found = {
        domain.name: f"@{domain.name}" if domain.name in unknown else domain.member
        for domain in topology.domains
    }
    return Hosts(found, {})


@dataclass(frozen=True)
class Published:
    """Where a machine's device listens on its host, and the address and port that it leads to.

    ``host`` is one of ``Hosts``.
    """

    machine: MachinePlan
    device: str
    host: str
    address: str
    port: int
    to: tuple[str, int]


@dataclass(frozen=True)
class Publishing:
    """All that is published, and the addresses of each host that are known."""

    every: tuple[Published, ...]
    addresses: Mapping[str, Collection[str]]

    def at(self, address: str, port: int) -> Published | None:
        """What is certainly published at an address of a host, for who asks from a machine."""
        if is_loopback(address) or is_any(address):
            return None  # of the machine that asks
        for each in self.every:
            everywhere = is_any(each.address) and address in self.addresses.get(each.host, ())
            if each.port == port and (each.address == address or everywhere):
                return each
        return None


def publishing(topology: Topology, hosts: Hosts | None = None) -> Publishing:
    """What the proxy devices publish; without ``hosts``, as far as the file tells."""
    hosts = hosts or declared_hosts(topology)
    every = tuple(
        Published(machine, name, hosts.of[machine.domain], *at, to)
        for machine in topology.machines
        for name, device in topology.devices_of(machine).items()
        for at, to in publishes(device, machine)
    )
    # In a cluster a bridge has its address on every member: it is that of the host that asks.
    bridges = {str(domain.gateway) for domain in topology.domains}
    found = {host: set(some) - bridges for host, some in hosts.addresses.items()}
    for each in every:
        found.setdefault(each.host, set()).add(each.address)
    for asking in (*topology.with_role(GATEWAY_ROLE), *topology.with_role(WEBUI_ROLE)):
        [bridge] = [each.gateway for each in topology.domains if each.name == asking.domain]
        found.setdefault(hosts.of[asking.domain], set()).add(str(bridge))
    return Publishing(every, found)


def is_any(address: str) -> bool:
    """Whether who listens there listens on every address."""
    try:
        return ip_address(address).is_unspecified
    except ValueError:
        return False


@dataclass(frozen=True)
class _Listener:
    """What listens on a host: ``text`` is the value at ``place``.

    ``environment`` is the place in their list, where several are compared.
    """

    place: str
    text: str
    machine: MachinePlan
    environment: int = 0


def port_conflicts(
    settings: Settings, topology: Topology, hosts: Hosts, file: str
) -> Iterator[Problem]:
    """Proxy devices that would listen on the same port of the same host.

    ``file`` is how messages call the topology.
    """
    for each, other, port in _clashes(_listeners(settings, topology, file), hosts):
        yield _conflict(each, other, port)


def environment_conflicts(settings: Settings, topology: Topology, file: str) -> Iterator[Problem]:
    """Ports that devices of two environments would have, if these are on one host.

    They may be on hosts of their own, and a stack knows only its own connection: nothing is wrong
    for certain. What stt:webui.publish is in the other stacks is not known either: it is taken to
    be the default there, if it is that here.
    """
    environment = topology.domains[0].environment
    subnets = [domain.subnet for domain in topology.domains]
    default = settings.model_copy(update={"webui": type(settings.webui)()})
    same = settings.webui.publish == environment.publish(default).webui.publish
    every = [
        replace(
            each,
            text=environment.listen_in(number, each.text, subnets),
            environment=number,
        )
        for number in range(len(environment.listed))
        for each in _listeners(settings, topology, file)
        if same or number == environment.number or each.place != _PUBLISH
    ]
    for each, other, port in _clashes(every, declared_hosts(topology)):
        if each.environment != other.environment:
            yield _across(each, other, port, environment.listed)


def _clashes(
    listeners: Iterable[_Listener], hosts: Hosts
) -> Iterator[tuple[_Listener, _Listener, int]]:
    """Who would listen where another one does, that one, and the port; once for two values."""
    taken: dict[tuple[str, str, int], dict[str, _Listener]] = {}
    said: set[frozenset[str]] = set()
    for each in listeners:
        for protocol in ("tcp", "udp"):
            for address, port in ends(each.text, protocol):
                there = taken.setdefault((hosts.of[each.machine.domain], protocol, port), {})
                key = "" if is_any(address) else address  # all of them are all addresses
                other = next(iter(there.values()), None) if not key else None
                other = other or there.get(key) or there.get("")
                if other and other is not each:
                    both = frozenset((each.place, other.place))
                    if both not in said:
                        yield each, other, port
                    said.add(both)
                there.setdefault(key, each)


def _listeners(settings: Settings, topology: Topology, file: str) -> Iterator[_Listener]:
    webui = topology.with_role(WEBUI_ROLE)
    for machine in topology.machines:
        devices = topology.devices_of(machine)
        made = {link.device for link in topology.links_to(machine)}
        if webui == [machine] and settings.webui.publish:
            yield _Listener(_PUBLISH, f"tcp:{settings.webui.publish}", machine)
        for name, device in devices.items():
            if is_proxy(device) and not listens_inside(device):
                own = f"{place_of(topology, machine, name)}.listen"
                place = f"{file}: {'global.members' if name in made else own}"
                yield _Listener(place, device.get("listen", ""), machine)


def _conflict(each: _Listener, other: _Listener, port: int) -> Problem:
    if each.place == other.place:
        message = (
            f"{show(each.text)} is for {other.machine.full_name} and {each.machine.full_name}, and "
            f"only one of them can listen on port {port} of their host. Give each machine a device "
            "of its own, with another port or another address of the host; machines of one count "
            "have the same devices, so remove it there, and publish the gateway before them."
        )
    else:
        message = (
            f"{show(each.text)} takes port {port} of the host, and so does {show(other.text)} of "
            f"{other.machine.full_name} ({other.place}). Give one of them another port, or each an "
            "address of the host of its own."
        )
    return Problem(each.place, message)


def _across(each: _Listener, other: _Listener, port: int, names: Sequence[str]) -> Problem:
    message = (
        f"{show(each.text)} in {names[each.environment]} takes port {port} of the host, and so "
        f"does {show(other.text)} in {names[other.environment]} ({other.place}): each environment "
        f"adds {PORTS}. On one host only one of them can listen there. Give them ports that differ "
        "in their last two digits, or the environments hosts of their own (stt:connection)."
    )
    return Problem(each.place, message)
