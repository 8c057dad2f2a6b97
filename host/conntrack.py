"""Connections that are open: an ACL lets through what was opened before it had its rules."""

from __future__ import annotations

import subprocess

from declaration.connection import Connection
from host.client import shell

#: Without root, or without the program, they stay until they end by themselves.
_CUT = """command -v conntrack >/dev/null || exit 0
[ "$(id -u)" = 0 ] && sudo= || sudo='sudo -n'
$sudo conntrack -D {ends} >/dev/null 2>&1 || :"""


def cut(connection: Connection, source: str, destination: str = "") -> None:
    """End the connections that a network's machines have opened (to another network).

    Through a remote of Incus nobody can do it: those would be this machine's connections.
    """
    if connection.kind == "incus":
        return
    ends = f"-s {source}" + (f" -d {destination}" if destination else "")
    subprocess.run(  # noqa: S603  # the operator's own host
        [*shell(connection), _CUT.format(ends=ends)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
