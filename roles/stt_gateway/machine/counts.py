"""What became of the requests, from nginx's log: a datagram for each, without a word of it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

#: An address, or what stands between those of two tries.
_PLACE = re.compile(r"[\d.]+:\d+")


@dataclass
class Tries:
    """What one server got: tries, those that failed, and those that it was too full for."""

    requests: int = 0
    failed: int = 0
    full: int = 0


@dataclass
class Totals:
    """Requests with work, and what became of them.

    ``retried``: those that went to a second server. ``refused``: answered with 429. ``failed``:
    with 500 or more. ``seconds``: how long all of them took together.
    """

    requests: int = 0
    retried: int = 0
    refused: int = 0
    failed: int = 0
    seconds: float = 0.0


class Counts:
    """The counts of all requests, and of each server by its address and port."""

    def __init__(self, places: Iterable[str]) -> None:
        self.totals = Totals()
        self.tries = {place: Tries() for place in places}

    def add(self, line: str) -> None:
        """Count a line of the log format ``counts``; one that is none is left out."""
        fields = line.partition("nginx: ")[2].split("|")
        if len(fields) != 4 or not fields[0].isdigit():
            return
        status = int(fields[0])
        totals = self.totals
        totals.requests += 1
        totals.refused += status == 429
        totals.failed += status >= 500
        totals.seconds += float(fields[1])
        places = _PLACE.findall(fields[2])
        totals.retried += len(places) > 1
        for place, said in zip(places, re.findall(r"\d+|-", fields[3]), strict=False):
            if tries := self.tries.get(place):
                tries.requests += 1
                tries.full += said == "429"
                # 499: the client has left.
                tries.failed += (said == "-" and status != 499) or said.startswith("5")

    def data(self) -> dict[str, Any]:
        """The totals, as JSON has them."""
        return {**asdict(self.totals), "seconds": round(self.totals.seconds, 3)}
