"""Devices of the topology by which a machine gets past the rules of its domain's bridge. Pure.

A further network card is on another network, or on the host's own. A proxy device that listens
inside a machine has the host connect, and no rule of the bridge sees it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address

from declaration.internet import is_on_internet
from declaration.topology import DomainPlan, MachinePlan, declared_devices
from declaration.urls import is_loopback
from stack.listening import is_proxy, listens_inside

#: The types of devices that are network cards.
_CARDS = ("nic", "infiniband")
_CONNECT = re.compile(r"(?P<protocol>tcp|udp):(?P<host>\S+):(?P<ports>[\d,-]+)")


@dataclass(frozen=True)
class Bypass:
    """A device that gets a machine past its bridge; ``to`` and ``what`` are how it is shown.

    ``card`` is the network of a further network card. ``internet``: it may lead there.
    """

    machine: str
    device: str
    to: str
    what: str
    card: str = ""
    internet: bool = True

    def __str__(self) -> str:
        return f"{self.machine} -> {self.to}: {self.what} (device {self.device})"


def bypasses(domain: DomainPlan) -> list[Bypass]:
    """Those of a domain's machines."""
    return [each for machine in domain.machines for each in _of_machine(domain, machine)]


def _of_machine(domain: DomainPlan, machine: MachinePlan) -> Iterator[Bypass]:
    for name, device in declared_devices(domain.domain, machine.machine).items():
        if device.get("type") in _CARDS:
            network = device.get("network") or device.get("parent") or "the host"
            if network != domain.bridge:  # its own bridge has the rules
                to = f"whatever {network} reaches"
                yield Bypass(machine.full_name, name, to, "everything", network)
        elif is_proxy(device) and listens_inside(device):
            yield _proxy(machine.full_name, name, device.get("connect", ""))


def _proxy(machine: str, device: str, connect: str) -> Bypass:
    found = _CONNECT.fullmatch(connect)
    if not found:  # a socket
        return Bypass(machine, device, "the host", connect, internet=False)
    host = found["host"].strip("[]")
    what = f"{found['protocol']} {found['ports'].replace(',', ', ')}"
    to = f"the host at {host}" if is_loopback(host) else host
    return Bypass(machine, device, to, what, internet=_may_be_on_internet(host))


def _may_be_on_internet(host: str) -> bool:
    """Whether a host may be there; where a name leads nobody knows."""
    try:
        address = ip_address(host)
    except ValueError:
        return not is_loopback(host)
    if isinstance(address, IPv4Address):
        return is_on_internet(address, address)
    return address.is_global


def bypass_warnings(domain: DomainPlan) -> list[str]:
    """A further network card: nothing that is said of the domain holds there."""
    return [
        f"{each.machine}: what passes through its device {each.device} ({each.card}) bypasses the "
        f"rules of {domain.name}: egress, policy, its DNS, and the check of addresses are those of "
        "its bridge only. Remove the device unless that is meant."
        for each in bypasses(domain)
        if each.card
    ]
