"""Whether this machine gets through to others: ``reach.py SECONDS ADDRESS:PORT…`` prints JSON.

For each end ``connected``, ``refused`` (its machine answers, and nothing listens there), or
``silent``: no answer within the time. It runs by itself, with Python's standard library.
"""

from __future__ import annotations

import json
import socket
import sys
from concurrent.futures import ThreadPoolExecutor


def reach(end: str, seconds: float) -> str:
    """How a TCP connection to ``ADDRESS:PORT`` goes."""
    address, _, port = end.rpartition(":")
    try:
        socket.create_connection((address, int(port)), seconds).close()
    except ConnectionRefusedError:
        return "refused"
    except OSError:
        return "silent"
    return "connected"


def main(seconds: float, ends: list[str]) -> None:
    """Try all at once, and print how it went."""
    with ThreadPoolExecutor(max(1, len(ends))) as pool:
        said = pool.map(lambda end: reach(end, seconds), ends)
        print(json.dumps(dict(zip(ends, said, strict=True))))


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2:])
