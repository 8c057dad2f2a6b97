"""What goes to other hosts without encryption, recordings and keys with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from urllib.parse import urlsplit

from declaration.settings import Settings
from declaration.topology import Topology
from declaration.urls import is_loopback
from stack.checks import GATEWAY_ROLE, WEBUI_ROLE
from stack.flows import named_urls

#: The settings that name services, by the role that asks these.
_ASKED_BY = {
    "stt:gateway.servers": GATEWAY_ROLE,
    "stt:webui.stt_url": WEBUI_ROLE,
    "stt:webui.ollama_url": WEBUI_ROLE,
}


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
            f"{said}: who is on the way hears recordings and reads keys. Use https where the "
            "service has it, or, where you trust the network between the hosts, name it in "
            "global.trusted_networks."
        )


def unencrypted(settings: Settings, topology: Topology) -> Iterator[Unencrypted]:
    """Each service that is asked so, once for a setting that names it."""
    for setting, url in named_urls(settings):
        role = _ASKED_BY.get(setting)
        parts = urlsplit(url)
        if not role or not topology.with_role(role) or parts.scheme != "http":
            continue
        host = parts.hostname or ""
        address = _address(host)
        if is_loopback(host) or (address and _is_here(address, topology)):
            continue
        networks = (each for each in topology.trusted_networks if address and address in each)
        yield Unencrypted(setting, url, next(networks, None))


def _address(host: str) -> IPv4Address | None:
    try:
        return IPv4Address(host)
    except ValueError:
        return None  # a name: nobody knows where it leads


def _is_here(address: IPv4Address, topology: Topology) -> bool:
    """Whether it is of a bridge of this stack."""
    return any(address in domain.subnet for domain in topology.domains)
