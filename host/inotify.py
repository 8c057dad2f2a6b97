"""A limit of the host's kernel that all its containers share: instances of inotify.

What runs in a container counts for root of the host, whatever users the container has.
"""

from __future__ import annotations

LIMIT = "fs.inotify.max_user_instances"
#: Where the kernel tells it, containers included.
FILE = "/proc/sys/fs/inotify/max_user_instances"
#: What a container of Debian 12 or Ubuntu 24.04 has once it has booted: most are systemd's.
EACH = 10
#: The next step.
RAISE = f"echo {LIMIT}=1024 > /etc/sysctl.d/60-incus.conf && sysctl --system"


def too_few(limit: str, containers: int) -> bool:
    """Whether so many containers need more than the limit; False if it is not known."""
    return limit.strip().isdigit() and containers * EACH > int(limit)
