"""Whether the host's storage pool holds to the sizes of root disks."""

from __future__ import annotations

from host.read import Live
from stack.declare import Declaration


def warnings(declaration: Declaration, live: Live) -> list[str]:
    """Disk sizes that the pool may silently ignore (Incus 6.0)."""
    pool = declaration.settings.pool
    sized = [plan.full_name for plan in declaration.topology.machines if plan.machine.disk]
    if not sized or live.pools.get(pool) != "dir":
        return []
    return [
        f"{', '.join(sized)}: the storage pool {pool} is a directory (dir), where Incus enforces "
        "`disk` only if its file system is mounted with project quotas (prjquota), and otherwise "
        "ignores it. A pool on btrfs, lvm or zfs enforces it (stt:pool)."
    ]
