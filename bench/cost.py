"""What a command costs: its time, and the CPU time of all that works for it."""

from __future__ import annotations

import os
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """Both in s. ``cpu`` has the Incus daemon in it, and what it runs in machines."""

    seconds: float
    cpu: float


def _daemon() -> float:
    """What the Incus daemons of this machine have taken so far, and programs in machines; s."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            name, _, rest = stat.read_text().partition("(")[2].rpartition(")")
            # User and system time, its own and that of the children that have ended (proc(5)).
            ticks += sum(map(int, rest.split()[11:15])) if name == "incusd" else 0
    return ticks / _TICKS


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def cost(work: Callable[[], None]) -> Cost:
    """What it costs."""
    cpu, began = _daemon() + _children(), time.monotonic()
    work()
    took = time.monotonic() - began
    return Cost(took, _daemon() + _children() - cpu)


def show(name: str, costs: Sequence[Cost]) -> None:
    """Print the medians, and the least CPU time, which other programs disturb least."""
    times, cpu = [each.seconds for each in costs], [each.cpu for each in costs]
    shown = " ".join(f"{each:.2f}" for each in times)
    print(f"{name}: median {statistics.median(times):.2f} s ({shown})")
    print(f"  CPU: median {statistics.median(cpu):.2f} s, least {min(cpu):.2f} s")
