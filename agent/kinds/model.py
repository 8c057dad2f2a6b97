"""A model on a volume: fetched once, and loaded once before anything that runs is touched."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agent import seal
from agent.difference import Difference
from agent.files import remove
from agent.kinds.kind import Applied, Kind
from agent.machine import Machine, StepError, say

if TYPE_CHECKING:
    from agent.actions import Action, Run
else:  # a check does without them, and starts sooner
    Action = Run = object


@dataclass(frozen=True)
class Model(Kind):
    """A model's directory. Without ``fetch`` it is there already.

    ``check_load`` loads the model and ends. What was fetched stays when the step goes.
    """

    kind = "model"
    name: str
    directory: str
    check_load: Run
    fetch: Sequence[Action] = field(default_factory=list)
    owner: str = "root:root"
    #: What fetching it downloads; MB, 0: not known.
    download: int = 0

    @property
    def locks(self) -> list[str]:
        """The directory."""
        return [self.directory]

    @property
    def fetches(self) -> bool:
        """The model, where it is not there already."""
        return bool(self.fetch)

    def apply(self, machine: Machine, step: str) -> Applied:
        """Fetch what is missing, one machine after the other, then load it once."""
        from agent.actions import read

        took: dict[str, float] = {}
        spoiled = False
        check_load, *fetch = read([self.check_load, *self.fetch])
        try:
            if fetch:
                began = time.monotonic()
                with machine.volume_lock(self.directory):
                    missing = not seal.is_sealed(machine, self.directory)
                    spoiled = missing and seal.was_sealed(machine, self.directory)
                    if missing:
                        self._fetch(machine, fetch, spoiled)
                took["fetch"] = round(time.monotonic() - began, 3)
            began = time.monotonic()
            check_load.do(machine)
            took["check"] = round(time.monotonic() - began, 3)
        except StepError as error:
            # What was fetched so far is nobody's yet; only a model that was complete is missed.
            raise error.saying(unchanged=not spoiled) from None
        return Applied({"model": self.name, "took": took})

    def _fetch(self, machine: Machine, fetch: Sequence[Action], spoiled: bool) -> None:
        from agent.actions import give
        from agent.progress import amount, on_disk, progress

        # Changed after it was complete: from the start. What was cut off goes on.
        if spoiled:
            remove(machine.path(self.directory))
        size = self.download * 1_000_000
        if size:
            say(f"downloading {self.name}: {amount(size)}")
        place = machine.path(self.directory)
        with progress(self.name, lambda: on_disk(place), size):
            for action in fetch:
                action.do(machine)
        give(machine, self.directory, self.owner)
        seal.seal(machine, self.directory)

    def check(self, machine: Machine, made: Mapping[str, Any]) -> list[Difference]:
        """Whether it is as it was fetched."""
        return seal.check(machine, self.directory) if self.fetch else []
