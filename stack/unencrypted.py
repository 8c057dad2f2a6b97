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


@dataclass(frozen=True)
class Unencrypted:
    """A service of another host that a setting names by ``http://``.

    ``trusted`` is its network, where ``global.trusted_networks`` has it.
    """

    setting: str
    url: str
    trusted: IPv4Network | None = None

    def __str__(self) -> str:
        said = f"{self.setting}: {self.url} is on another host, and is asked without encryption"
        if self.trusted:
            return f"{said}, over {self.trusted}, which global.trusted_networks names."
        return (
            f"{said}: whoever is on the way can read recordings and keys. Use https where the "
            "service has it, or, where you trust the network between the hosts, name it in "
            "global.trusted_networks."
        )


def unencrypted(settings: Settings, topology: Topology) -> Iterator[Unencrypted]:
    """Each service that is asked so, once for a setting that names it."""
    for asked in asked_services(settings, topology):
        if urlsplit(asked.url).scheme != "http":
            continue
        address = _address(asked.host)
        if is_loopback(asked.host) or (address and _is_here(address, topology)):
            continue
        networks = (each for each in topology.trusted_networks if address and address in each)
        yield Unencrypted(asked.setting, asked.url, next(networks, None))


def _address(host: str) -> IPv4Address | None:
    try:
        return IPv4Address(host)
    except ValueError:
        return None  # a name: nobody knows where it leads


def _is_here(address: IPv4Address, topology: Topology) -> bool:
    """Whether it is of a bridge of this stack."""
    return any(address in domain.subnet for domain in topology.domains)
