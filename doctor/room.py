"""How much room a file system has, as a finding; and how long a certificate lasts. Pure."""

from __future__ import annotations

import time

from doctor.finding import Finding, broken, doubtful, good

#: Bytes. Below the first nothing can be installed, and services fail to write. The first `up` with
#: Speaches, Open WebUI and a large model takes about the second, another engine about the third.
LEAST, FIRST_UP, LATER_UP = 1 << 30, 10 << 30, 3 << 30
#: The share of inodes below which a file system counts as full.
_INODES = 0.01
#: Seconds before its end from which a certificate is doubtful, unless something renews it.
SOON, _DAY = 30 * 86400, 86400


def room(
    subject: str, path: str, free: float, size: float, inodes: float, enough: float, next_: str
) -> Finding:
    """``free``, ``size`` and ``enough`` in bytes; ``inodes`` is the share that is free."""
    found = f"{free / 2**30:.1f} of {size / 2**30:.1f} GiB free on {path}"
    if inodes < _INODES:
        return broken(subject, f"{found}, but no inodes are left: no file can be made", next_)
    if free < LEAST:
        return broken(subject, found, next_)
    if free < enough:
        return doubtful(subject, f"{found}; `up` may need {enough / 2**30:.0f} GiB", next_)
    return good(subject, found)


def lasts(
    subject: str, what: str, end: float, now: float, next_: str, soon: float = SOON
) -> Finding:
    """A certificate that lasts until ``end``; it is doubtful ``soon`` s before that."""
    left, day = end - now, time.strftime("%Y-%m-%d", time.gmtime(end))
    if left <= 0:
        return broken(subject, f"{what} has expired on {day}", next_)
    days = f"{left / _DAY:.0f} days" if left >= 2 * _DAY else f"{left / 3600:.0f} hours"
    if left < soon:
        return doubtful(subject, f"{what} expires in {days}, on {day}", next_)
    return good(subject, f"{what} lasts {days}, until {day}")
