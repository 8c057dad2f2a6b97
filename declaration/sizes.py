"""Sizes as Incus writes them: ``20GiB``, ``500MB``."""

from __future__ import annotations

import re

#: Incus' units in bytes (its documentation, "Units for storage and network limits").
_UNITS: dict[str, int] = {
    "": 1,
    "B": 1,
    **{f"{prefix}B": 1000**power for power, prefix in enumerate("kMGTPE", 1)},
    **{f"{prefix}iB": 1024**power for power, prefix in enumerate("KMGTPE", 1)},
}


def size_bytes(text: str) -> int | None:
    """A size in bytes; None if it is nothing that Incus takes."""
    found = re.fullmatch(r"(\d+)\s*([A-Za-z]*)", text.strip())
    if found is None or found[2] not in _UNITS:
        return None
    return int(found[1]) * _UNITS[found[2]]
