"""What a check says: good, doubtful or broken, and the next step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class Mark(Enum):
    """How something is. ``DOUBTFUL``: it works or may work, and somebody should look."""

    GOOD = "good"
    DOUBTFUL = "doubtful"
    BROKEN = "broken"


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at (``subject``), what was ``found``, and the ``next`` step.

    ``next`` is empty if all is good.
    """

    subject: str
    mark: Mark
    found: str
    next: str = ""


def good(subject: str, found: str) -> Finding:
    """All is well."""
    return Finding(subject, Mark.GOOD, found)


def doubtful(subject: str, found: str, next_: str) -> Finding:
    """It may be well."""
    return Finding(subject, Mark.DOUBTFUL, found, next_)


def broken(subject: str, found: str, next_: str) -> Finding:
    """It is not well."""
    return Finding(subject, Mark.BROKEN, found, next_)


def worst(findings: Sequence[Finding]) -> Mark:
    """The worst mark of all."""
    marks = {each.mark for each in findings}
    return next((mark for mark in (Mark.BROKEN, Mark.DOUBTFUL) if mark in marks), Mark.GOOD)
