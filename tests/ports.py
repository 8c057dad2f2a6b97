"""Ports for the servers of tests."""

from __future__ import annotations

import os
import socket
from pathlib import Path

_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
#: Each process of the tests has ports of its own, this many.
_EACH = 1000
_given = 0


def free_port() -> int:
    """A port of localhost that a server can take a moment later.

    It lies below those that the kernel gives to outgoing connections: one of these may be in use
    again when the server comes to bind it.
    """
    global _given  # a port is not given twice in a process
    end = int(_EPHEMERAL.read_text().split()[0])
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    for _ in range(_EACH):
        _given += 1
        port = end - 1 - (worker * _EACH + _given % _EACH)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError(f"No port of {_EACH} below {end} is free.")
