"""Environments: one topology several times, each with names, addresses and ports of its own. Pure.

The first environment of ``global.environments`` is the topology as it is written, and so is a stack
without ``stt:environment``. What the others have follows from their place in that list.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network

from declaration.infra import BRIDGE_PREFIX, INTERFACE_NAME_MAX, SUBNETS, Domain, Infra
from declaration.problems import DeclarationError, Problem, show, suggest
from declaration.settings import Settings

#: What each environment adds to published ports.
PORTS = 100
_LAST_PORT = 65535
_LISTEN = re.compile(r"(?P<address>(?:tcp|udp):.*:)(?P<ports>[\d,-]+)")
#: An end of a proxy device with an IPv4 address.
_END = re.compile(r"(?P<protocol>(?:tcp|udp):)(?P<address>\d+(?:\.\d+){3})(?P<ports>:.*)")
_Devices = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Environment:
    """An environment; ``number`` is its place in the list of names, ``listed``."""

    name: str = ""
    number: int = 0
    listed: tuple[str, ...] = ()

    @property
    def subnets(self) -> range:
        """The third numbers of its subnets."""
        first = self._added
        return range(first, first + SUBNETS) if self.listed else range(256)

    @property
    def _added(self) -> int:
        """What is added to the third number of an address."""
        return self.number * SUBNETS

    def domain(self, name: str) -> str:
        """A domain's name, and that of its Incus project."""
        return f"{name}-{self.name}" if self.number else name

    def bridge(self, domain: str) -> str:
        """The bridge of a domain, by its name in the file."""
        if not self.number:
            return BRIDGE_PREFIX + domain
        return f"{BRIDGE_PREFIX.removesuffix('-')}{self.number}-{domain}"

    def apply(self, infra: Infra, shown: str) -> Infra:
        """The topology with pinned subnets, addresses and published ports of this environment.

        Raises:
            DeclarationError: something has no room.
        """
        problems: list[Problem] = []
        domains = {
            name: self._domain(each, name, f"{shown}: domains.{name}", problems)
            for name, each in infra.domains.items()
        }
        if problems:
            raise DeclarationError(problems)
        return infra.model_copy(update={"domains": domains})

    def _domain(self, domain: Domain, name: str, place: str, problems: list[Problem]) -> Domain:
        if len(bridge := self.bridge(name)) > INTERFACE_NAME_MAX:
            longest = len(name) - (len(bridge) - INTERFACE_NAME_MAX)
            message = (
                f"its bridge {bridge} in the environment {self.name} would have {len(bridge)} "
                f"characters, and an interface name has at most {INTERFACE_NAME_MAX}. Use a name "
                f"of at most {longest} characters."
            )
            problems.append(Problem(place, message))
        subnet = domain.subnet
        third = subnet.network_address.packed[2] if subnet and subnet.prefixlen == 24 else 0
        if subnet and self.listed and third >= SUBNETS:
            message = (
                f"{show(str(subnet))} leaves no room for other environments: the third number of a "
                f"subnet is below {SUBNETS}, and each environment adds {SUBNETS} to it."
            )
            problems.append(Problem(f"{place}.subnet", message))
            return domain
        moved = _with_devices(
            domain, place, lambda devices, where: self._devices(devices, where, problems)
        )
        machines = {
            key: each.model_copy(update={"ip": self._moved(each.ip) if each.ip else None})
            for key, each in moved.machines.items()
        }
        update = {"subnet": self._subnet(subnet) if subnet else None, "machines": machines}
        return moved.model_copy(update=update)

    def _subnet(self, subnet: IPv4Network) -> IPv4Network:
        if subnet.prefixlen != 24:
            return subnet  # it is refused
        return IPv4Network((self._moved(subnet.network_address), subnet.prefixlen))

    def _moved(self, address: IPv4Address) -> IPv4Address:
        return address + (self._added << 8)

    def as_written(self, address: IPv4Address) -> IPv4Address:
        """An address of this environment, as the file has it."""
        return self._away(-self.number)._moved(address)

    def _devices(
        self, devices: _Devices, place: str, problems: list[Problem]
    ) -> dict[str, Mapping[str, str]]:
        """Proxies that listen on the host get ports of their own."""
        found: dict[str, Mapping[str, str]] = {}
        for name, device in devices.items():
            found[name] = device
            if _is_published(device):
                problems += self._without_room(device["listen"], f"{place}.{name}.listen")
                found[name] = {**device, "listen": self._listen(device["listen"])}
        return found

    def _without_room(self, listen: str, place: str) -> list[Problem]:
        """Ports that are too high for one of the environments.

        That is said in all of them: who adds a device sees it in the first preview.
        """
        found = _LISTEN.fullmatch(listen)
        highest = max(map(int, re.findall(r"\d+", found["ports"])), default=0) if found else 0
        room = _LAST_PORT - PORTS * max(len(self.listed) - 1, 0)
        if not room < highest <= _LAST_PORT:
            return []
        number = (_LAST_PORT - highest) // PORTS + 1
        message = (
            f"{show(listen)} leaves no room for other environments: each adds {PORTS} to the port, "
            f"which would be {highest + number * PORTS} in {self.listed[number]}, and the last "
            f"port is {_LAST_PORT}. Use a port of at most {room}."
        )
        return [Problem(place, message)]

    def _listen(self, listen: str) -> str:
        found = _LISTEN.fullmatch(listen)
        if not found:
            return listen
        ports = re.sub(r"\d+", lambda port: str(self.port(int(port[0]))), found["ports"])
        return found["address"] + ports

    def at_home(self, domain: Domain, subnets: Collection[IPv4Network]) -> Domain:
        """A domain with the ends of its proxies in this environment's ``subnets``.

        The file has addresses in those of the first one. Others are left as they are.
        """
        if not self.number:
            return domain
        written = [self._away(-self.number)._subnet(each) for each in subnets]

        def move(devices: _Devices, _: str) -> dict[str, Mapping[str, str]]:
            return {
                name: {
                    key: self._end(value, written) if key in ("listen", "connect") else value
                    for key, value in device.items()
                }
                if device.get("type") == "proxy"
                else device
                for name, device in devices.items()
            }

        return _with_devices(domain, "", move)

    def _end(self, end: str, subnets: Collection[IPv4Network]) -> str:
        """An end of a proxy device, moved if its address is in one of the subnets."""
        found = _END.fullmatch(end)
        try:
            address = IPv4Address(found["address"]) if found else None
        except ValueError:
            return end
        if not found or not address or not any(address in each for each in subnets):
            return end
        return f"{found['protocol']}{self._moved(address)}{found['ports']}"

    def listen_in(self, number: int, listen: str, subnets: Collection[IPv4Network]) -> str:
        """What listens on the host in this environment, as it does in another one.

        ``subnets`` are this one's.
        """
        there = self._away(number - self.number)
        return there._end(there._listen(listen), subnets)

    def _away(self, places: int) -> Environment:
        """What moves something by so many places in the list, back where it is negative."""
        return replace(self, number=places)

    def port(self, port: int) -> int:
        """A port of the host."""
        return port + self.number * PORTS

    def publish(self, settings: Settings) -> Settings:
        """The settings with the default of ``stt:webui.publish`` of this environment.

        What the stack says itself stays.
        """
        webui = settings.webui
        if not self.number or "publish" in webui.model_fields_set:
            return settings
        address, _, port = webui.publish.rpartition(":")
        published = webui.model_copy(update={"publish": f"{address}:{self.port(int(port))}"})
        return settings.model_copy(update={"webui": published})


def _with_devices(
    domain: Domain, place: str, change: Callable[[_Devices, str], _Devices]
) -> Domain:
    """A domain with other devices; ``change`` gets them and where the file has them."""
    update = {
        kind: {
            key: each.model_copy(
                update={"devices": change(each.devices, f"{place}.{kind}.{key}.devices")}
            )
            for key, each in having.items()
        }
        for kind, having in (("profiles", domain.profiles), ("machines", domain.machines))
    }
    return domain.model_copy(update=update)


def _is_published(device: Mapping[str, str]) -> bool:
    """Whether it is a proxy that listens on the host."""
    at_host = device.get("bind", "host") == "host"
    return device.get("type") == "proxy" and at_host and "listen" in device


def environment_of(name: str, infra: Infra, shown: str) -> Environment:
    """The environment of ``stt:environment``.

    Raises:
        DeclarationError: the topology does not list it.
    """
    listed = tuple(infra.global_.environments)
    if not name:
        return Environment(listed=listed)
    if name not in listed:
        message = f"{show(name)} is not an environment of {shown}."
        if listed:
            message += f"{suggest(name, listed)} Allowed: {', '.join(listed)}, or empty."
        else:
            message += " List it there, as in global.environments: [production, staging]."
        raise DeclarationError([Problem("stt:environment", message)])
    return Environment(name, listed.index(name), listed)
