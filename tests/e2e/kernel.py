"""A limit of this host's kernel, raised for a run: a dozen containers use up the usual one."""

from __future__ import annotations

import os
from pathlib import Path

from host.inotify import FILE

#: Holds what was there before this run, or before one that was cut off.
_FORMER = Path("/run/stt-e2e-inotify")
#: For some hundred containers.
_ENOUGH = 1024


def raise_limit() -> None:
    """Raise it, unless this user cannot or it is high enough."""
    limit = Path(FILE)
    former = limit.read_text()
    if os.geteuid() or int(former) >= _ENOUGH:
        return
    _FORMER.write_text(former)
    limit.write_text(str(_ENOUGH))


def restore_limit() -> None:
    """Put back what was there."""
    if _FORMER.exists():
        Path(FILE).write_text(_FORMER.read_text())
        _FORMER.unlink()
