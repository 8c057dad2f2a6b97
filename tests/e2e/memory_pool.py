"""A storage pool in memory, where there is enough of it.

A run makes and removes some hundred containers. On a disk each costs seconds of the kernel's time,
here a fraction of one.
"""

from __future__ import annotations

import os
from pathlib import Path

from tests.e2e.project import POOL, incus, run

PLACE = Path("/run") / POOL
#: What a run fills at most, and what the host has to have free for that; GiB.
_SIZE, _FREE = 12, 16


def _free() -> float:
    """The host's free memory; GiB."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    found = next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    return int(found) / 2**20


def make() -> None:
    """Make it, unless this user cannot, or there is too little memory."""
    remove()
    if os.geteuid() or _free() < _FREE:
        return
    PLACE.mkdir()
    if run("mount", "-t", "tmpfs", "-o", f"size={_SIZE}g", "tmpfs", str(PLACE)).returncode:
        PLACE.rmdir()
        return
    add(POOL)


def add(name: str) -> None:
    """Make a pool of a test's own, in memory where there is enough of it."""
    words = ["storage", "create", name, "dir"]
    if PLACE.is_mount():
        (PLACE / name).mkdir()
        words.append(f"source={PLACE / name}")
    incus(*words)


def remove() -> None:
    """Remove it with all that is in it."""
    run("incus", "storage", "delete", POOL)
    if PLACE.is_mount():
        run("umount", "-l", str(PLACE))
    if PLACE.exists():
        PLACE.rmdir()
