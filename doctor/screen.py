"""The screen: a line for each finding, and the next step under it."""

from __future__ import annotations

from collections.abc import Sequence

from doctor.finding import Finding, Mark

_PLAIN = "\x1b[0m"
_COLOURS = {Mark.GOOD: "\x1b[32m", Mark.DOUBTFUL: "\x1b[33m", Mark.BROKEN: "\x1b[31m"}
_WIDTH = max(len(mark.value) for mark in Mark)


def lines(findings: Sequence[Finding], colour: bool) -> list[str]:
    """The lines to show, and the counts in the last one."""
    subjects = max((len(each.subject) for each in findings), default=0)
    found: list[str] = []
    for each in findings:
        mark = each.mark.value.ljust(_WIDTH)
        mark = f"{_COLOURS[each.mark]}{mark}{_PLAIN}" if colour else mark
        found.append(f"{mark}  {each.subject.ljust(subjects)}  {each.found}")
        if each.next:
            found.append(f"{' ' * _WIDTH}  {' ' * subjects}  -> {each.next}")
    counts = {mark: sum(each.mark is mark for each in findings) for mark in Mark}
    return [*found, ", ".join(f"{counts[mark]} {mark.value}" for mark in Mark)]
