"""``python -m bench.people``: how many people a server carries, computed from measured speeds.

It prints the table of docs/scale.md. The speeds are those of docs/measurements.md, one window at a
time: a server transcribes one dictation after the other, and one of up to 30 s is one window.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, floor

#: A dictation (s), and how many a person sends in an hour.
DICTATION, AN_HOUR = 20, 30
#: The share of its time that a server works: with more, those who wait become many.
BUSY = 0.6
PEOPLE = 1000
#: Whisper's window (s), and the tokens of one that is full of speech.
_WINDOW, _TOKENS = 30, 100


@dataclass(frozen=True)
class Speed:
    """What was measured of a model: seconds of audio in a second, with so many tokens a window."""

    model: str
    where: str
    rtfx: float
    tokens: int

    @property
    def takes(self) -> float:
        """The time of a dictation, at most; s. Twice the tokens take at most twice the time."""
        windows = ceil(DICTATION / _WINDOW)
        return windows * _WINDOW / self.rtfx * _TOKENS / self.tokens

    @property
    def a_minute(self) -> int:
        """How many dictations one server takes in a minute, at ``BUSY``."""
        return floor(BUSY * 60 / self.takes)

    @property
    def people(self) -> int:
        """How many one server carries."""
        return floor(BUSY * 3600 / (AN_HOUR * self.takes))

    @property
    def servers(self) -> int:
        """How many servers ``PEOPLE`` need, and one more, so that one may be away."""
        return ceil(PEOPLE * AN_HOUR * self.takes / 3600 / BUSY) + 1


SPEEDS = (
    Speed("large-v3-turbo", "an H100, float16", 199, 50),
    Speed("large-v3", "an H100, float16", 43, 50),
    Speed("base", "two CPU cores, float32", 14.1, 100),
    Speed("tiny", "two CPU cores, float32", 24.1, 100),
)


def table() -> Iterator[str]:
    """The lines of the table."""
    yield (
        "| model, one server | RTFx | a dictation takes at most | dictations a minute | people "
        "| servers for 1,000 people |"
    )
    yield "|---|---|---|---|---|---|"
    for each in SPEEDS:
        yield (
            f"| {each.model}, {each.where} | {each.rtfx:g} | {each.takes:.2f} s | {each.a_minute} "
            f"| {each.people} | {each.servers} |"
        )


if __name__ == "__main__":
    print("\n".join(table()))
