"""Removes models that are no longer used."""

from __future__ import annotations

import contextlib
import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.files import remove
from agent.kinds.kind import Applied, Kind
from agent.machine import Machine, StepError, say


@dataclass(frozen=True)
class Prune(Kind):
    """Every directory that one of ``patterns`` matches goes, except those of ``keep``."""

    kind = "prune"
    patterns: Sequence[str]
    keep: Sequence[str]

    @property
    def locks(self) -> list[str]:
        """The patterns."""
        return list(self.patterns)

    def apply(self, machine: Machine, step: str) -> Applied:
        """Remove them, one machine after the other."""
        removed: list[str] = []
        for pattern in self.patterns:
            with machine.volume_lock(pattern):
                removed += self._remove(machine, pattern)
        return Applied({"removed": removed})

    def _remove(self, machine: Machine, pattern: str) -> list[str]:
        kept = {machine.path(path) for path in self.keep}
        removed: list[str] = []
        for name in sorted(glob.glob(str(machine.path(pattern)))):
            path = Path(name)
            if not path.is_dir() or path in kept:
                continue
            # One that a step works on right now is left to a later run.
            inside = f"/{path.relative_to(machine.root)}"
            with contextlib.suppress(StepError), machine.lock(inside, deadline=0):
                say(f"removing {name}, a model that is no longer used")
                remove(path)
                removed.append(name)
        return removed
