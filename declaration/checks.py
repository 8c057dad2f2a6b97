"""Checks of single values of the stack configuration, and the text of each refusal.

Each returns the value, or raises a ``ValueError`` that says what is allowed and what to do.
"""

from __future__ import annotations

import re
from typing import Any

from declaration.languages import LANGUAGES
from declaration.problems import show

#: With the address of its registry, where that is another one than Ollama's.
_OLLAMA_MODEL = re.compile(
    r"([A-Za-z0-9][\w.-]*(:\d+)?/)?([A-Za-z0-9][\w.-]*/)*[A-Za-z0-9][\w.-]*(:[\w.-]+)?"
)
#: A word that no program takes for an option.
WORD = re.compile(r"[A-Za-z0-9_][\w.@%:/+-]*")
#: A client's name stands in the log, in outputs and in the names of resources.
_CLIENT = re.compile(r"[a-z]([a-z0-9-]{0,30}[a-z0-9])?")
_KEY = re.compile(r"[A-Za-z0-9._~+/=-]{8,200}")
_DURATION = re.compile(r"-1|0|(\d+(\.\d+)?(ms|s|m|h))+")
#: Names of schedules that Incus knows for volumes.
_SCHEDULES = {"@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@annually", "@yearly"}
#: The fields of cron as Incus reads them: first and last number, and names from the first on.
_FIELDS = (
    (0, 59, ""),
    (0, 23, ""),
    (1, 31, ""),
    (1, 12, "jan feb mar apr may jun jul aug sep oct nov dec"),
    (0, 6, "sun mon tue wed thu fri sat"),
)
_RANGE = re.compile(r"(\*|(?P<first>\w+)(-(?P<last>\w+))?)(/[1-9]\d?)?")
_EXPIRY = re.compile(r"[1-9]\d{0,4}[MHdwmy]")
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}


def check_text(value: Any) -> Any:
    """A text, where the field takes something else as well."""
    if not isinstance(value, str):
        raise ValueError(f"{show(value)} is not text. Write it in quotes")
    return value


def check_language(value: str) -> str:
    """One of Whisper's language codes, or nothing."""
    if value and value not in LANGUAGES:
        raise ValueError(
            f"{show(value)} is not a language code of Whisper. Use one such as en, fr, de, or "
            "leave it empty to detect the language"
        )
    return value


def check_key(value: str) -> str:
    """A key of characters that need no quotes anywhere, or nothing; it is not shown."""
    if value and not _KEY.fullmatch(value):
        raise ValueError(
            "is not usable as a key (its value is not shown). "
            "Use 8 to 200 of A-Z a-z 0-9 . _ ~ + / = -"
        )
    return value


def check_client(value: str) -> str:
    """A client's name."""
    if not _CLIENT.fullmatch(value):
        raise ValueError(
            f"{show(value)} is not usable as a client's name. Use 1 to 32 of a-z 0-9 and -, with a "
            "letter first and no dash last, such as phone or home-assistant"
        )
    return value


def check_unique(values: list[str]) -> list[str]:
    """A list in which nothing is twice."""
    for index, value in enumerate(values):
        if value in values[:index]:
            raise ValueError(f"has {show(value)} twice. Remove one")
    return values


def check_password(value: str) -> str:
    """A password that bcrypt takes whole, or nothing; it is not shown."""
    length = len(value.encode())
    if value and (not value.isprintable() or not 8 <= length <= 72):
        raise ValueError(
            "is not usable as a password (its value is not shown). "
            "Use 8 to 72 bytes without control characters"
        )
    return value


def check_image(value: str) -> str:
    """An image's name, as Incus takes it."""
    if not WORD.fullmatch(value):
        raise ValueError(
            f"{show(value)} is not the name of an image. Use one such as images:ubuntu/24.04"
        )
    return value


def check_pool(value: str) -> str:
    """A storage pool's name."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", value):
        raise ValueError(
            f"{show(value)} is not the name of a storage pool. See `incus storage list`"
        )
    return value


def check_source(value: str) -> str:
    """An address or a path."""
    if not value or value.startswith("-") or re.search(r"[\s\x00-\x1f]", value):
        raise ValueError(f"{show(value)} is neither an address nor a path. Use https://… or ./path")
    return value


def check_ollama_model(value: str) -> str:
    """A model's name, as Ollama takes it."""
    if not _OLLAMA_MODEL.fullmatch(value):
        raise ValueError(
            f"{show(value)} is not the name of an Ollama model. Use one such as llama3.2:3b"
        )
    return value


def check_duration(value: str) -> str:
    """A duration, as ``seconds`` takes it."""
    if not _DURATION.fullmatch(value):
        raise ValueError(f"{show(value)} is not a duration. Use one such as 5m, 0 or -1 (never)")
    return value


def check_schedule(value: str) -> str:
    """When Incus takes snapshots, as it takes that itself, or nothing."""
    if value and not set(value.split(", ")) <= _SCHEDULES and not _is_cron(value):
        raise ValueError(
            f"{show(value)} is not a schedule. Use one such as @daily, or five fields as in cron "
            "(minute, hour, day, month, day of the week from 0 to 6): 0 3 * * *"
        )
    return value


def _is_cron(value: str) -> bool:
    words = value.split(" ")
    return len(words) == len(_FIELDS) and all(
        _is_within(part, *field)
        for word, field in zip(words, _FIELDS, strict=True)
        for part in word.split(",")
    )


def _is_within(part: str, least: int, most: int, names: str) -> bool:
    """Whether a part of a field is ``*``, a number, a name or a range, maybe with a step."""
    found = _RANGE.fullmatch(part)
    numbers = {name: least + place for place, name in enumerate(names.split())}
    numbers |= {str(number): number for number in range(least, most + 1)}
    ends = [each for each in (found["first"], found["last"]) if each] if found else []
    known = [numbers.get(each.lower(), -1) for each in ends]
    return found is not None and -1 not in known and known == sorted(known)


def check_expiry(value: str) -> str:
    """How long Incus keeps a snapshot, as it takes that itself, or nothing."""
    words = value.split(" ") if value else []
    units = [word[-1:] for word in words]
    if not all(_EXPIRY.fullmatch(word) for word in words) or len(set(units)) < len(units):
        raise ValueError(
            f"{show(value)} is not a time to keep snapshots. Use one such as 7d, 3w or 1m 2d "
            "(M minutes, H hours, d days, w weeks, m months, y years), or leave it empty to keep "
            "them"
        )
    return value


def seconds(duration: str) -> int:
    """A duration in whole seconds, at least one unless it is 0; -1: never.

    ``duration`` is what ``check_duration`` accepts.
    """
    if duration in ("-1", "0"):
        return int(duration)
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h)", duration)
    return max(1, round(sum(float(number) * _UNITS[unit] for number, unit in parts)))
