"""A model on a volume: fetched once, and loaded once before anything that runs is touched."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from agent import seal
from agent.actions import Action, Run, give
from agent.difference import Difference
from agent.files import remove
from agent.kinds.kind import Applied, Kind
from agent.machine import Machine, StepError


@dataclass(frozen=True)
class Model(Kind):
    """A model's directory. Without ``fetch`` it is there already.

    ``check`` loads the model and ends. What was fetched stays when the step goes.
    """

    kind: ClassVar = "model"
    name: str
    directory: str
    check_load: Run
    fetch: Sequence[Action] = field(default_factory=list)
    owner: str = "root:root"

    @property
    def locks(self) -> list[str]:
        """The directory."""
        return [self.directory]

    def apply(self, machine: Machine, step: str) -> Applied:
        """Fetch what is missing, then load it once."""
        took: dict[str, float] = {}
        began = time.monotonic()
        if self.fetch:
            if not seal.is_sealed(machine, self.directory):
                # Changed after it was complete: from the start. What was cut off goes on.
                if seal.was_sealed(machine, self.directory):
                    remove(machine.path(self.directory))
                for action in self.fetch:
                    action.do(machine)
                give(machine, self.directory, self.owner)
                seal.seal(machine, self.directory)
            took["fetch"] = round(time.monotonic() - began, 3)
        began = time.monotonic()
        try:
            self.check_load.do(machine)
        except StepError as error:
            raise StepError(
                error.brief, details=error.details, resolution=error.resolution, unchanged=True
            ) from None
        took["check"] = round(time.monotonic() - began, 3)
        return Applied({"model": self.name, "took": took})

    def check(self, machine: Machine, made: Mapping[str, Any]) -> list[Difference]:
        """Whether it is as it was fetched."""
        return seal.check(machine, self.directory) if self.fetch else []
