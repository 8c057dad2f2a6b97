"""A machine's users on the host: nobody else's, or those of all containers (``isolated``)."""

from __future__ import annotations

from collections.abc import Mapping

#: Incus' key for it, and Incus' words for true.
ISOLATED = "security.idmap.isolated"
_TRUE = ("true", "1", "yes", "on")
#: How many users a machine has: Incus' default for one whose users are its own.
USERS = 65536


def is_isolated(config: Mapping[str, str], default: bool) -> bool:
    """What a configuration says; ``default`` where it says nothing."""
    return config[ISOLATED].lower() in _TRUE if ISOLATED in config else default


def room(ids: str) -> int | None:
    """For how many machines with users of their own the host has numbers; None: not known.

    ``ids`` are the lines of /etc/subuid and /etc/subgid. Incus takes the first of root's ranges,
    leaves the first part of it to the other containers, and never uses the last number.
    """
    sizes = [
        int(fields[2])
        for fields in (line.strip().split(":") for line in ids.splitlines())
        if len(fields) == 3 and fields[0] in ("root", "0") and fields[2].isdigit()
    ]
    return max(0, (min(sizes) - 1) // USERS - 1) if sizes else None
