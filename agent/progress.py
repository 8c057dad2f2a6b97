"""What the operator reads in something long: how much has come, how fast, and what is left."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from agent.machine import Machine, say

#: Seconds between two lines; what takes less has none.
EVERY = 15.0
#: The innermost speaks: it knows best. With the lock no other line comes in between.
_running: list[object] = []
_lock = threading.Lock()


def amount(size: float) -> str:
    """Bytes as people read them: ``1.6 GB``."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def time_left(seconds: float) -> str:
    """``about 3 min left``."""
    if seconds < 90:
        return f"about {max(1, round(seconds))} s left"
    return f"about {round(seconds / 60)} min left"


def line(what: str, came: int, total: int, speed: float) -> str:
    """A line on ``came`` of ``total`` bytes (0: not known), at ``speed`` bytes a second."""
    if speed <= 0:
        pace = f"nothing came for {EVERY:.0f} s"
    else:
        pace = f"{amount(speed)}/s"
        if total > came:
            pace += f", {time_left((total - came) / speed)}"
    share = f" of {amount(total)} ({min(99, came * 100 // total)} %)" if total else " so far"
    return f"  … {what}: {amount(came)}{share}, {pace}"


@contextlib.contextmanager
def progress(what: str, came: Callable[[], int], total: int = 0) -> Iterator[None]:
    """Tell now and then how much there is: ``came`` counts bytes, ``total`` is all of them."""
    done, me = threading.Event(), object()

    def watch() -> None:
        before, moment = came(), time.monotonic()
        while not done.wait(EVERY):
            now, later = came(), time.monotonic()
            with _lock:
                if _running[-1:] == [me]:
                    say(line(what, now, total, (now - before) / (later - moment)))
            before, moment = now, later

    with _lock:
        _running.append(me)
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        done.set()
        with _lock:
            _running.remove(me)


def for_this_machine(sizes: Mapping[str, int]) -> int:
    """The bytes for this machine's Python and processor (``3.12 x86_64``); 0: not known.

    What has a Python of its own has them by processor only.
    """
    import platform  # not at the top: a check does without, and starts sooner
    import sys

    processor = platform.machine()
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    return sizes.get(f"{python} {processor}", sizes.get(processor, 0))


def on_disk(place: Path) -> int:
    """Bytes that a file or a directory takes; what was reserved and not written does not count."""
    if not place.is_dir():
        with contextlib.suppress(OSError):
            return place.stat().st_blocks * 512
        return 0
    total = 0
    for folder, _, files in os.walk(place):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512
    return total


def receiving(machine: Machine) -> Callable[[], int]:
    """Counts the bytes that the machine receives from now on, by whichever program.

    Source: proc_net_dev, the first number behind an interface's name.
    """

    def received() -> int:
        try:
            rows = machine.path("/proc/net/dev").read_text().splitlines()[2:]
        except OSError:
            return 0
        pairs = (row.partition(":") for row in rows)
        return sum(int(data.split()[0]) for name, _, data in pairs if name.strip() != "lo")

    first = received()
    return lambda: received() - first
