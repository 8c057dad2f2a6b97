"""What goes to other hosts without encryption, recordings and keys with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from urllib.parse import urlsplit

from declaration.settings import Settings
from declaration.topology import Topology
from declaration.urls import is_loopback
from stack.asked import asked_services
from stack.leads import address_from, port_of
from stack.published import Publishing, publishing


@dataclass(frozen=True)
class Unencrypted:
    """A service of another host that a setting names by ``http://``.

    ``trusted`` is its network, where ``global.trusted_networks`` has it. ``by`` is the machine of
    this stack whose proxy device publishes it there: in a cluster, one on another member.
    """

    setting: str
    url: str
    trusted: IPv4Network | None = None
    by: str = ""

    def __str__(self) -> str:
        where = f"where a proxy device of {self.by} publishes it" if self.by else "on another host"
        said = f"{self.setting}: {self.url} is {where}, and is asked without encryption"
        if self.trusted:
            return f"{said}, over {self.trusted}, which global.trusted_networks names."
        return (
            f"{said}: whoever is on the way can read recordings and keys. Use https if the "
            "service has it, or, if you trust the network between the hosts, name it in "
            "global.trusted_networks."
        )


def unencrypted(settings: Settings, topology: Topology) -> Iterator[Unencrypted]:
    """Each service that is asked so, once for a setting that names it.

    What the parts of one domain ask each other is not among these (``stack.spans``).
    """
    there = publishing(topology)
    links = {(each.setting, each.url) for each in topology.links}
    for asked in asked_services(settings, topology):
        if urlsplit(asked.url).scheme != "http" or (asked.setting, asked.url) in links:
            continue
        hosts = {address_from(machine, asked.host, topology) for machine in asked.by}
        if all(_is_here(host, topology) for host in hosts):
            continue
        address = _address(asked.host)
        networks = (each for each in topology.trusted_networks if address and address in each)
        by = _by(asked.host, port_of(asked.url) or 0, topology, there)
        yield Unencrypted(asked.setting, asked.url, next(networks, None), by)


def _by(address: str, port: int, topology: Topology, there: Publishing) -> str:
    """The machine that publishes it, and its member as the file has it."""
    found = there.at(address, port)
    if not found:
        return ""
    [member] = [each.member for each in topology.domains if each.name == found.machine.domain]
    return f"{found.machine.full_name} on {member}" if member else found.machine.full_name


def _address(host: str) -> IPv4Address | None:
    try:
        return IPv4Address(host)
    except ValueError:
        return None  # a name: nobody knows where it leads


def _is_here(host: str, topology: Topology) -> bool:
    """Whether it is the machine that asks, or of a bridge of this stack."""
    address = _address(host)
    return is_loopback(host) or any(
        address in domain.subnet for domain in topology.domains if address
    )
