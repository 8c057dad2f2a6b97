"""On which addresses and ports of its machines a stack listens. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from declaration.settings import Settings
from declaration.topology import MachinePlan, Topology
from declaration.urls import is_loopback
from stack.role_rules import Bound, RoleRules

LOOPBACK, _ANY = "127.0.0.1", "0.0.0.0"  # noqa: S104  # compared, not bound
#: An end of a proxy device of Incus: an address, and ports or ranges of them.
_END = re.compile(r"(?P<protocol>tcp|udp):(?P<host>\S+):(?P<ports>\d+(-\d+)?(,\d+(-\d+)?)*)")


@dataclass(frozen=True)
class Service:
    """A service of a role; ``setting`` chooses its port."""

    setting: str
    port: int
    bound: Bound

    def __str__(self) -> str:
        return (
            f"the service of {self.setting} listens on {self.bound.address} only, as "
            f"{self.bound.reason}"
        )


@dataclass(frozen=True)
class Listening:
    """What listens in a machine: services by port, and ends of proxy devices."""

    machine: MachinePlan
    services: Mapping[int, Service]
    proxies: frozenset[tuple[str, int]]

    @property
    def address(self) -> str:
        """The machine's address."""
        return str(self.machine.address)

    def reached(self, address: str, port: int) -> bool:
        """Whether something listens at an address of the machine."""
        service = self.services.get(port)
        own = {(service.bound.address, port)} if service else set()
        return bool({(address, port), (_ANY, port)} & (own | self.proxies))

    def missed(self, address: str, port: int) -> Service | None:
        """The service that has the port, if it does not listen on the address."""
        return None if self.reached(address, port) else self.services.get(port)


def listening(
    settings: Settings, topology: Topology, roles: Mapping[str, RoleRules]
) -> dict[str, Listening]:
    """What listens in each machine, by the machine's address."""
    return {
        str(machine.address): Listening(
            machine, _services(settings, machine, roles), _proxies(topology, machine)
        )
        for machine in topology.machines
    }


def _services(
    settings: Settings, machine: MachinePlan, roles: Mapping[str, RoleRules]
) -> dict[int, Service]:
    return {
        port: Service(setting, port, role.bound(settings).get(setting, Bound(_ANY, "", "")))
        for role in (roles[name] for name in machine.roles)
        for setting, port in role.listens(settings).items()
    }


def _proxies(topology: Topology, machine: MachinePlan) -> frozenset[tuple[str, int]]:
    """Where proxy devices of the operator's listen in a machine."""
    devices = topology.devices_of(machine).values()
    return frozenset(
        end
        for device in devices
        if is_proxy(device) and listens_inside(device)
        for end in ends(device.get("listen", ""))
    )


def is_proxy(device: Mapping[str, str]) -> bool:
    """Whether it is a proxy device."""
    return device.get("type") == "proxy"


def listens_inside(device: Mapping[str, str]) -> bool:
    """Whether a proxy device listens in the machine, and connects from the host."""
    return device.get("bind", "host") != "host"


def connects(device: Mapping[str, str], machine: MachinePlan) -> Iterator[tuple[str, int]]:
    """The addresses and ports that a machine's proxy device leads to; none that are the host's."""
    for host, port in ends(device.get("connect", "")):
        inside = not listens_inside(device)
        if host == _ANY and inside:
            # To Incus it is any address of the machine, and to Linux the loopback.
            host = str(machine.address) if device.get("nat") == "true" else LOOPBACK
        if inside or not is_loopback(host):
            yield host, port


def address_of(host: str) -> str:
    """The address of a host's name, where it is that of the machine itself."""
    return LOOPBACK if is_loopback(host) and host.endswith("localhost") else host


def publishes(
    device: Mapping[str, str], machine: MachinePlan
) -> Iterator[tuple[tuple[str, int], tuple[str, int]]]:
    """Where a machine's device listens on its host, and to which address and port each leads."""
    if not is_proxy(device) or listens_inside(device):
        return
    listens = list(ends(device.get("listen", "")))
    to = [
        (str(machine.address) if is_loopback(host) else host, port)
        for host, port in connects(device, machine)
    ]
    # Incus takes as many ports as it listens on, or one for all.
    yield from zip(listens, to * len(listens) if len(to) == 1 else to, strict=False)


def place_of(topology: Topology, machine: MachinePlan, device: str) -> str:
    """Where the file has a machine's device."""
    if device in machine.machine.devices:
        return f"{machine.place}.devices.{device}"
    [domain] = [each for each in topology.domains if each.name == machine.domain]
    having = [
        name
        for name in machine.machine.profiles
        if name in domain.profiles and device in domain.profiles[name].devices
    ]
    return f"{domain.place}.profiles.{having[-1]}.devices.{device}"


def ends(text: str, protocol: str = "tcp") -> Iterator[tuple[str, int]]:
    """The addresses and ports of an end of a proxy device."""
    found = _END.fullmatch(text)
    if not found or found["protocol"] != protocol:
        return
    for ports in found["ports"].split(","):
        first, _, last = ports.partition("-")
        for port in range(int(first), int(last or first) + 1):
            yield address_of(found["host"].strip("[]")), port
