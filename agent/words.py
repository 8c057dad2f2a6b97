"""Words that were transcribed, compared with words that were said.

Scripts that put no spaces between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese) are compared
by characters: each is a word of its own here. All other text is compared by words.
"""

from __future__ import annotations

import re
from typing import Any

_ONES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TEENS = (
    *("ten", "eleven", "twelve", "thirteen", "fourteen"),
    *("fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
#: What is written for an apostrophe: quotation marks, accents, a prime, letters that look like it.
_APOSTROPHES = dict.fromkeys(map(ord, "`\u00b4\u02bb\u02bc\u2018\u2019\u2032\uff07"), "'")
#: Thai, Lao, Burmese, Khmer, kana, and Han with its signs of repetition.
_WITHOUT_SPACES = (
    "\u0e00-\u0eff\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f\u1780-\u17ff"
    "\u3041-\u30ff\u31f0-\u31ff\U0001b000-\U0001b16f"
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3038-\u303b\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
#: They choose a glyph, and are no part of a word.
_VARIATIONS = "[\ufe00-\ufe0f\U000e0100-\U000e01ef]"
_PART = rf"[^\s'{_WITHOUT_SPACES}]+"
_WORD = rf"[{_WITHOUT_SPACES}]|{_PART}(?:'{_PART})*"


def words_of(text: str, *, numbers: bool = False) -> list[str]:
    """The words of a text, without case and punctuation; each digit is its English word.

    With ``numbers`` 10 to 99 are the words of the number instead: "ten", and not "one zero".
    """
    from unicodedata import normalize  # not at the top: a check does without, and starts sooner

    text = normalize("NFKC", text.translate(_APOSTROPHES)).casefold()
    text = re.sub(_VARIATIONS, "", normalize("NFKC", text))
    if numbers:
        text = re.sub(r"(?<!\d)[1-9]\d(?!\d)", lambda found: f" {_number(int(found[0]))} ", text)
    text = re.sub(r"\d", lambda digit: f" {_ONES[int(digit[0])]} ", text)
    return re.findall(_WORD, _without_punctuation(text))


def _number(number: int) -> str:
    """10 to 99 in English words."""
    tens, ones = divmod(number, 10)
    if tens == 1:
        return _TEENS[ones]
    return _TENS[tens - 2] + (f" {_ONES[ones]}" if ones else "")


def _without_punctuation(text: str) -> str:
    """Letters with their marks, and apostrophes; a space for all else, and nothing for joiners."""
    from unicodedata import category

    kept = [" "]
    for char in text:
        kind = category(char)
        if kind[0] in "LN" or char == "'" or (kind[0] == "M" and kept[-1] not in " '"):
            kept.append(char)
        elif kind[0] != "M" and kind != "Cf":
            kept.append(" ")
    return "".join(kept)


def word_error_rate(said: str, heard: str) -> float:
    """How many words have to be changed, added or removed, as a part of those that were said.

    Who says 10 means "ten", or "one zero": what fits best counts.
    """
    return min(
        _distance(wanted, found) / max(len(wanted), 1)
        for wanted in _readings(said)
        for found in _readings(heard)
    )


def _readings(text: str) -> list[list[str]]:
    """The words with each digit by itself, and with numbers where that is something else."""
    digits, numbers = words_of(text), words_of(text, numbers=True)
    return [digits] if digits == numbers else [digits, numbers]


def _distance(wanted: list[str], found: list[str]) -> int:
    """How many words have to be changed, added or removed."""
    row = list(range(len(found) + 1))
    for count, word in enumerate(wanted, 1):
        before, row[0] = row[0], count
        for place, other in enumerate(found, 1):
            changed = before + (word != other)
            before = row[place]
            row[place] = min(changed, row[place] + 1, row[place - 1] + 1)
    return row[-1]


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
