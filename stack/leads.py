"""Where the URLs of the settings lead, by who asks: names of a domain, published addresses. Pure.

The name server of a bridge knows the machines of its domain, and no others (docs/topology.md).
"""

from __future__ import annotations

from urllib.parse import urlsplit

from declaration.topology import MachinePlan, Topology
from declaration.urls import WEB_PORTS, is_loopback
from stack.listening import address_of
from stack.published import Publishing, is_any

#: What ends the full names of a domain's machines.
SUFFIX = ".incus"


def named_machine(host: str, asking: MachinePlan, topology: Topology) -> MachinePlan | None:
    """The machine that a name leads to, for a machine of its domain: NAME or NAME.incus."""
    return next(
        (
            each
            for each in topology.machines
            if each.domain == asking.domain and is_name_of(host, each)
        ),
        None,
    )


def is_name_of(host: str, machine: MachinePlan) -> bool:
    """Whether a host in a URL is a machine's name, bare or full."""
    # With a dot at its end a name is full: nothing is appended to it.
    return host == machine.name or host.removesuffix(".") == f"{machine.name}{SUFFIX}"


def address_from(asking: MachinePlan, host: str, topology: Topology) -> str:
    """The address of a host in a URL; a name that this stack does not give stays a name."""
    found = named_machine(host, asking, topology)
    return str(found.address) if found else address_of(host)


def port_of(url: str) -> int | None:
    """The port of a URL; None if it has no valid one."""
    try:
        parts = urlsplit(url)
        return parts.port or WEB_PORTS.get(parts.scheme)
    except ValueError:
        return None


def leads_to(
    url: str, asking: MachinePlan, topology: Topology, there: Publishing
) -> tuple[str, int]:
    """The address and the port that a URL leads to, asked from a machine.

    They are those of a machine of this stack by its name, where a proxy device is known to publish
    it, and inside the machine that asks; else the URL's own.
    """
    address = address_from(asking, urlsplit(url).hostname or "", topology)
    port = port_of(url) or 0
    if is_loopback(address) or is_any(address):
        return str(asking.address), port
    found = there.at(address, port)
    return found.to if found else (address, port)
