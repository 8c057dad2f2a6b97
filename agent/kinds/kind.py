"""What a kind of step is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields

from agent.difference import Difference
from agent.machine import Machine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar, Self


@dataclass(frozen=True)
class Applied:
    """What came of a step.

    ``result`` is for the stack's outputs; ``made`` is kept in the record; ``finish`` is done once
    the record is written.
    """

    result: Mapping[str, Any] = field(default_factory=dict)
    made: Mapping[str, Any] = field(default_factory=dict)
    finish: Callable[[], None] = lambda: None


class Kind:
    """A kind of step: a frozen dataclass whose fields are its spec.

    A subclass in a module of this package is all that a new kind needs; its name in a spec is
    ``kind``. Fields are described where they stand.
    """

    kind: ClassVar[str]
    #: Whether a spec may hold secrets. The record of such a step has only what was ``made``, and
    #: ``check`` and ``remove`` make do with that.
    takes_secrets: ClassVar[bool] = False
    #: Whether the step restarts when what it needs was restored.
    starts_programs: ClassVar[bool] = False

    @property
    def locks(self) -> list[str]:
        """What the step works on: no other step works on it meanwhile."""
        return []

    @property
    def fetches(self) -> bool:
        """Whether applying it may need the internet."""
        return False

    @property
    def payload(self) -> bool:
        """Whether a tar archive follows the spec on stdin."""
        return False

    @classmethod
    def without_spec(cls) -> Self:
        """The kind of a secret step, for ``check`` and ``remove``: fields have their defaults."""
        bare = object.__new__(cls)
        for each in fields(cls) if cls.takes_secrets else ():  # type: ignore[arg-type]
            if each.default_factory is not MISSING:
                object.__setattr__(bare, each.name, each.default_factory())
        return bare

    def apply(self, machine: Machine, step: str) -> Applied:
        """Bring the machine to what the spec says; what is so already is left as it is.

        Raises:
            StepError: it could not be done.
        """
        raise NotImplementedError

    def check(self, machine: Machine, made: Mapping[str, Any]) -> list[Difference]:
        """Where the machine differs from what was applied. Changes nothing."""
        return []

    def answers(self, machine: Machine) -> Mapping[str, Any]:
        """What the step's service says of itself, for the planner. Changes nothing."""
        return {}

    def remove(self, machine: Machine, made: Mapping[str, Any]) -> None:
        """Take away what the step made, except what others may use and data."""

    def written(self) -> Sequence[str]:
        """Files that go once the step no longer writes them."""
        return []

    def paths(self) -> list[str]:
        """Directories and files of the step that go once no record names them now."""
        return []
