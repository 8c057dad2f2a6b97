"""How much of its host's memory a machine may take (``limits.memory``)."""

from __future__ import annotations

import re

from declaration.sizes import size_bytes

#: Incus' key for it.
LIMIT = "limits.memory"
#: Without a word of the topology. The host keeps the rest, so that it can still be reached.
DEFAULT = "90%"


def limit_mib(limit: str, total: int) -> int | None:
    """A limit in MiB on a host with ``total`` bytes, or 0 if that is not known.

    None: it is a part of what is not known, or nothing that Incus takes.
    """
    if found := re.fullmatch(r"(\d+)\s*%", limit.strip()):
        return total * min(int(found[1]), 100) // 100 // 2**20 if total else None
    size = size_bytes(limit)
    if size is None:
        return None
    return (min(size, total) if total else size) // 2**20
