"""Words that were transcribed, compared with words that were said."""

from __future__ import annotations

import re
from typing import Any

_DIGITS = dict(
    zip(
        "0123456789",
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
        strict=True,
    )
)


def words_of(text: str) -> list[str]:
    """The words of a text, without case and punctuation; each digit is its English word."""
    spelled = re.sub(r"\d", lambda digit: f" {_DIGITS.get(digit[0], digit[0])} ", text.casefold())
    return re.findall(r"[^\W_]+(?:['’][^\W_]+)*", spelled)


def word_error_rate(said: str, heard: str) -> float:
    """How many words have to be changed, added or removed, as a part of those that were said."""
    wanted, found = words_of(said), words_of(heard)
    row = list(range(len(found) + 1))
    for count, word in enumerate(wanted, 1):
        before, row[0] = row[0], count
        for place, other in enumerate(found, 1):
            changed = before + (word != other)
            before = row[place]
            row[place] = min(changed, row[place] + 1, row[place - 1] + 1)
    return row[-1] / max(len(wanted), 1)


def compared(said: str, heard: str, allowed: float) -> dict[str, Any]:
    """What a verification says of a text: whether its words are proven, and the word error rate.

    Nothing is proven where ``said`` is empty: any words will do.

    Raises:
        ValueError: the word error rate is more than ``allowed``.
    """
    if not said:
        return {"proven": False}
    rate = round(word_error_rate(said, heard), 3)
    if rate > allowed:
        raise ValueError(
            f'transcribed a recording of "{said}" as "{heard[:200]}": a word error rate of {rate}, '
            f"and {allowed} is allowed."
        )
    return {"proven": True, "word_error_rate": rate}
