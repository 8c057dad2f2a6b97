"""The host's connection tracking: an ACL lets through the answers of connections that it knows."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network

from declaration.connection import Connection
from host.client import HostError
from host.root import DEADLINE, run_as_root

#: Without root, or without the program, they stay until they end by themselves.
_CUT = """command -v conntrack >/dev/null || exit 0
source=$1
shift
for network do
    $sudo conntrack -D -s "$source" -d "$network" >/dev/null 2>&1 || :
done"""


def elsewhere(network: str) -> list[str]:
    """All addresses that are none of a network's, as networks."""
    everything = IPv4Network("0.0.0.0/0")
    return [str(each) for each in everything.address_exclude(IPv4Network(network))]


def cut(connection: Connection, source: str, destinations: Sequence[str]) -> None:
    """End the connections that a network's machines have opened to other networks.

    Raises:
        HostError: it was not done in time.

    Those to other machines of the network have to stay: whoever waits for an answer would wait for
    ever, for to the firewall the answer would be the begin of a connection, the wrong way round.

    Through a remote of Incus nobody can do it: those would be this machine's connections.
    """
    if not run_as_root(connection, _CUT, source, *destinations):
        raise HostError(
            f"Connections of {source} were not cut within {DEADLINE} s. See whether sudo or the "
            "host hangs, then run up again."
        )
