"""A program that is installed into a directory of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agent import seal
from agent.difference import Difference
from agent.files import remove
from agent.kinds.kind import Applied, Kind
from agent.machine import Machine, StepError, say

if TYPE_CHECKING:
    from agent.actions import Action
else:  # a check does without them, and starts sooner
    Action = object


@dataclass(frozen=True)
class Program(Kind):
    """A directory, made once by ``actions``; another version has another directory.

    ``requires``: a file that it has to hold then. ``downloads``: bytes of its packages, by Python
    and processor.
    """

    kind = "program"
    directory: str
    description: str
    actions: Sequence[Action]
    requires: str = ""
    failure: str = ""
    downloads: Mapping[str, int] = field(default_factory=dict)

    @property
    def locks(self) -> list[str]:
        """The directory."""
        return [self.directory]

    @property
    def fetches(self) -> bool:
        """What its actions bring."""
        return True

    def apply(self, machine: Machine, step: str) -> Applied:
        """Make it, where it is not there as it was made; the old one comes back on a failure."""
        from agent.actions import give, read
        from agent.progress import amount, for_this_machine, progress, receiving

        place = machine.path(self.directory)
        before = place.with_name(place.name + ".before")
        if seal.is_sealed(machine, self.directory):
            remove(before)
            return Applied()
        spoiled = seal.was_sealed(machine, self.directory)
        if spoiled:
            remove(before)
            place.rename(before)
        remove(place)
        place.parent.mkdir(parents=True, exist_ok=True)
        size = for_this_machine(self.downloads)
        say(f"installing {self.description}" + (f": packages of {amount(size)}" if size else ""))
        try:
            with progress(f"{self.description}, received", receiving(machine), size):
                for action in read(self.actions):
                    action.do(machine)
            if self.requires and not machine.path(f"{self.directory}/{self.requires}").exists():
                raise StepError(self.failure or f"{self.directory} has no {self.requires}.")
            give(machine, self.directory, "root:root")
            seal.seal(machine, self.directory)
        except BaseException as error:
            remove(place)
            if before.exists():
                before.rename(place)
            if isinstance(error, StepError):
                raise error.saying(unchanged=not spoiled) from None
            raise
        remove(before)
        return Applied({"installed": self.description})

    def check(self, machine: Machine, made: Mapping[str, Any]) -> list[Difference]:
        """Files that were changed, added or removed."""
        return seal.check(machine, self.directory)

    def paths(self) -> list[str]:
        """The directory."""
        return [self.directory]
