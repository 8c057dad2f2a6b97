"""The URLs of this stack's own STT services, and which of these run. Pure."""

from __future__ import annotations

from urllib.parse import urlsplit

from declaration.settings import Settings
from declaration.topology import Topology
from declaration.urls import (
    WEB_PORTS,
    gateway_plain_url,
    gateway_url,
    is_loopback,
    stt_base_url,
    stt_url,
)
from stack.checks import GATEWAY_ROLE, STT_ROLE, WEBUI_ROLE
from stack.gateway import gateway_runs


def own_stt(settings: Settings, topology: Topology, url: str) -> bool | None:
    """Whether the STT service of this stack at a URL runs; None if none of it is there.

    It is a server or a gateway. The path does not count: there is one service on a port.
    """
    found: dict[tuple[str, str, int], bool] = {}
    for machine in topology.with_role(STT_ROLE):
        found[_end(stt_url(settings, machine))] = settings.enabled
        if WEBUI_ROLE in machine.roles:
            found[_end(stt_base_url(settings))] = settings.enabled
    for gateway in topology.with_role(GATEWAY_ROLE):
        for address in (gateway_url, gateway_plain_url):
            found[_end(address(settings, gateway))] = gateway_runs(settings)
    return found.get(_end(url))


def _end(url: str) -> tuple[str, str, int]:
    """Scheme, host and port; every loopback is the same one."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or WEB_PORTS.get(parts.scheme, 0)
    return parts.scheme, "localhost" if is_loopback(host) else host, port
