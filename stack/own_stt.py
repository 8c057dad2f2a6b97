"""Which of this stack's own STT services a URL leads to, and whether it runs. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from declaration.settings import Settings
from declaration.topology import MachinePlan, Topology
from declaration.urls import GATEWAY_PLAIN
from stack.checks import GATEWAY_ROLE, STT_ROLE
from stack.gateway import gateway_runs
from stack.leads import leads_to
from stack.published import publishing


@dataclass(frozen=True)
class OwnStt:
    """An STT service of this stack: a gateway or a server, by its role."""

    machine: MachinePlan
    role: str
    runs: bool


def own_stt(settings: Settings, topology: Topology, url: str, asking: MachinePlan) -> OwnStt | None:
    """The STT service of this stack that a URL leads to, asked from a machine; None: no such one.

    The path does not count: there is one service on a port.
    """
    scheme = urlsplit(url).scheme
    end = leads_to(url, asking, topology, publishing(topology))
    gateway = settings.gateway
    for machine in topology.with_role(GATEWAY_ROLE):
        address = str(machine.address)
        hosts = [address, *(gateway.names if gateway.secure else [])]
        ends = {(gateway.scheme, (host, gateway.port)) for host in hosts}
        if gateway.secure:
            ends.add(("http", (address, GATEWAY_PLAIN)))
        if (scheme, end) in ends:
            return OwnStt(machine, GATEWAY_ROLE, gateway_runs(settings))
    for machine in topology.with_role(STT_ROLE):
        if (scheme, end) == ("http", (str(machine.address), settings.port)):
            return OwnStt(machine, STT_ROLE, settings.enabled)
    return None
