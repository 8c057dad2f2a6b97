"""Connections that are open: an ACL lets through what was opened before it had its rules."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from ipaddress import IPv4Network

from declaration.connection import Connection
from host.client import shell

#: Without root, or without the program, they stay until they end by themselves.
_CUT = """command -v conntrack >/dev/null || exit 0
[ "$(id -u)" = 0 ] && sudo= || sudo='sudo -n'
for network in {destinations}; do
    $sudo conntrack -D -s {source} -d "$network" >/dev/null 2>&1 || :
done"""


def elsewhere(network: str) -> list[str]:
    """All addresses that are none of a network's, as networks."""
    everything = IPv4Network("0.0.0.0/0")
    return [str(each) for each in everything.address_exclude(IPv4Network(network))]


def cut(connection: Connection, source: str, destinations: Sequence[str]) -> None:
    """End the connections that a network's machines have opened to other networks.

    Those to other machines of the network have to stay: whoever waits for an answer would wait for
    ever, for to the firewall the answer would be the begin of a connection, the wrong way round.

    Through a remote of Incus nobody can do it: those would be this machine's connections.
    """
    if connection.kind == "incus":
        return
    script = _CUT.format(source=source, destinations=" ".join(destinations))
    subprocess.run(  # noqa: S603  # the operator's own host
        [*shell(connection), script],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
