"""Security updates of the distribution in each machine."""

from __future__ import annotations

from collections.abc import Iterator

from declaration.topology import MachinePlan
from doctor.case import Case
from doctor.check import machine_check
from doctor.finding import Finding, doubtful, good
from operations.status import age

_DAY = 86400
#: Days after which somebody should have asked again: what ``stt:updates`` says, and one more.
_DAYS = {"daily": 2, "weekly": 8, "monthly": 32}
#: How many packages are named.
_NAMED = 5


@machine_check
def updates(case: Case, plan: MachinePlan) -> Iterator[Finding]:
    """Whether security updates wait, and whether the distribution was asked lately."""
    said, wanted = case.examined(plan).get("updates"), case.declaration.settings.updates
    if not said:
        return
    subject, todo = f"{plan.name} updates", case.make("updates")
    waits, asked = said["packages"], float(said["asked"])
    since = round(case.facts.ended - asked)
    when = f"asked {age(max(0, since))} ago" if asked else "never asked"
    if waits:
        more = f" and {len(waits) - _NAMED} more" if len(waits) > _NAMED else ""
        names = f"{', '.join(waits[:_NAMED])}{more}"
        noun = "security update is" if len(waits) == 1 else "security updates are"
        yield doubtful(subject, f"{len(waits)} {noun} waiting: {names}; {when}", todo)
    elif wanted != "off" and since > _DAYS[wanted] * _DAY:
        yield doubtful(subject, f"{when}, and stt:updates is {wanted}", todo)
    else:
        yield good(subject, f"no security updates are waiting; {when}")
