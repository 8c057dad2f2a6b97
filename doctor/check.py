"""The checks there are: each is a function from a case to findings, registered where it stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from declaration.topology import MachinePlan
from doctor.case import Case
from doctor.finding import Finding

Check = Callable[[Case], Iterator[Finding]]
MachineCheck = Callable[[Case, MachinePlan], Iterator[Finding]]
#: Of the host, and of each machine that answers; in the order of the screen.
CHECKS: list[Check] = []
MACHINE_CHECKS: list[MachineCheck] = []


def check(function: Check) -> Check:
    """A check of the host, or of all of it."""
    CHECKS.append(function)
    return function


def machine_check(function: MachineCheck) -> MachineCheck:
    """A check of one machine, whose agent has answered."""
    MACHINE_CHECKS.append(function)
    return function
