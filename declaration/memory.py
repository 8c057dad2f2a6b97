"""How much of its host's memory a machine may take (``limits.memory``)."""

from __future__ import annotations

import re

#: Incus' key for it.
LIMIT = "limits.memory"
#: Without a word of the topology. The host keeps the rest, so that it can still be reached.
DEFAULT = "90%"
#: Incus' units in bytes (its documentation, "Units for storage and network limits").
_UNITS: dict[str, int] = {
    "": 1,
    "B": 1,
    **{f"{prefix}B": 1000**power for power, prefix in enumerate("kMGTPE", 1)},
    **{f"{prefix}iB": 1024**power for power, prefix in enumerate("KMGTPE", 1)},
}


def limit_mib(limit: str, total: int) -> int | None:
    """A limit in MiB on a host with ``total`` bytes, or 0 where that is not known.

    None: it is a part of what is not known, or nothing that Incus takes.
    """
    found = re.fullmatch(r"(\d+)\s*(%|[A-Za-z]*)", limit.strip())
    if found is None:
        return None
    number, unit = int(found[1]), found[2]
    if unit == "%":
        return total * min(number, 100) // 100 // 2**20 if total else None
    if unit not in _UNITS:
        return None
    size = number * _UNITS[unit]
    return (min(size, total) if total else size) // 2**20
