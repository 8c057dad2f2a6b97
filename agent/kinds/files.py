"""Plain files, and what has to be run once they are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agent import files
from agent.difference import Difference
from agent.files import File
from agent.kinds.kind import Applied, Kind
from agent.machine import Machine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


@dataclass(frozen=True)
class Files(Kind):
    """Files with their content; ``then``: programs with their arguments, run after a change."""

    kind = "files"
    files: Sequence[File]
    then: Sequence[Sequence[str]] = field(default_factory=list)

    @property
    def locks(self) -> list[str]:
        """The files."""
        return [file.path for file in self.files]

    def written(self) -> list[str]:
        """The files."""
        return [file.path for file in self.files]

    def apply(self, machine: Machine, step: str) -> Applied:
        """Write them."""
        for file in self.files:
            files.write(machine, file)
        for argv in self.then:
            machine.run(argv, deadline=120)
        return Applied()

    def check(self, machine: Machine, made: Mapping[str, Any]) -> list[Difference]:
        """Files that were changed."""
        return [each for file in self.files for each in files.check(machine, file)]

    def remove(self, machine: Machine, made: Mapping[str, Any]) -> None:
        """Remove the files."""
        for file in self.files:
            files.discard(machine, file.path)
