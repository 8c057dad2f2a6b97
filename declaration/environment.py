"""Environments: one topology several times, each with names, addresses and ports of its own. Pure.

The first environment of ``global.environments`` is the topology as it is written, and so is a stack
without ``stt:environment``. What the others have follows from their place in that list.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from declaration.infra import BRIDGE_PREFIX, INTERFACE_NAME_MAX, SUBNETS, Domain, Infra, Machine
from declaration.problems import DeclarationError, Problem, show, suggest
from declaration.settings import Settings

#: What each environment adds to published ports.
PORTS = 100
_LISTEN = re.compile(r"(?P<address>(?:tcp|udp):.*:)(?P<ports>[\d,-]+)")


@dataclass(frozen=True)
class Environment:
    """An environment; ``number`` is its place in the list, and ``listed`` the list's length."""

    name: str = ""
    number: int = 0
    listed: int = 0

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
        return domain.model_copy(
            update={
                "subnet": self._subnet(subnet) if subnet else None,
                "profiles": {
                    key: each.model_copy(update={"devices": self._devices(each.devices)})
                    for key, each in domain.profiles.items()
                },
                "machines": {key: self._machine(each) for key, each in domain.machines.items()},
            }
        )

    def _subnet(self, subnet: IPv4Network) -> IPv4Network:
        if subnet.prefixlen != 24:
            return subnet  # it is refused
        return IPv4Network((self._moved(subnet.network_address), subnet.prefixlen))

    def _moved(self, address: IPv4Address) -> IPv4Address:
        return address + (self._added << 8)

    def _machine(self, machine: Machine) -> Machine:
        address = self._moved(machine.ip) if machine.ip else None
        return machine.model_copy(update={"ip": address, "devices": self._devices(machine.devices)})

    def _devices(self, devices: Mapping[str, Mapping[str, str]]) -> dict[str, Mapping[str, str]]:
        """Proxies that listen on the host get ports of their own."""
        return {
            name: {**device, "listen": self._listen(device["listen"])}
            if device.get("type") == "proxy"
            and device.get("bind", "host") == "host"
            and "listen" in device
            else device
            for name, device in devices.items()
        }

    def _listen(self, listen: str) -> str:
        found = _LISTEN.fullmatch(listen)
        if not found:
            return listen
        ports = re.sub(r"\d+", lambda port: str(self.port(int(port[0]))), found["ports"])
        return found["address"] + ports

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


def environment_of(name: str, infra: Infra, shown: str) -> Environment:
    """The environment of ``stt:environment``.

    Raises:
        DeclarationError: the topology does not list it.
    """
    listed = infra.global_.environments
    if not name:
        return Environment(listed=len(listed))
    if name not in listed:
        message = f"{show(name)} is not an environment of {shown}."
        if listed:
            message += f"{suggest(name, listed)} Allowed: {', '.join(listed)}, or empty."
        else:
            message += " List it there, as in global.environments: [production, staging]."
        raise DeclarationError([Problem("stt:environment", message)])
    return Environment(name, listed.index(name), len(listed))
