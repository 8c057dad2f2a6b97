"""Which addresses are on the internet. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network

#: What no host on the internet has: this network, private, carrier's, loopback, link-local,
#: benchmark, multicast and reserved addresses (RFC 6890, RFC 5771).
_ELSEWHERE = (
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
    *("172.16.0.0/12", "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/3"),
)


def _internet() -> Iterator[str]:
    """The ranges between them, as Incus writes a range."""
    begin = IPv4Address(0)
    for taken in map(IPv4Network, _ELSEWHERE):
        if begin < taken[0]:
            yield f"{begin}-{taken[0] - 1}"
        if taken[-1] < IPv4Address("255.255.255.255"):
            begin = taken[-1] + 1


INTERNET = tuple(_internet())


def is_on_internet(first: IPv4Address, last: IPv4Address) -> bool:
    """Whether some address of a range is on the internet."""
    ranges = (tuple(map(IPv4Address, each.split("-"))) for each in INTERNET)
    return any(first <= high and low <= last for low, high in ranges)
