"""Every problem of a configuration at once, each naming its place, its value and the next step."""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    ``place`` is the setting (``stt:port``) or file and path in it (``infra.yml: domains.x``);
    ``message`` says what is wrong, what is allowed, and what to do.
    """

    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


class DeclarationError(Exception):
    """The configuration is wrong; nothing on the host was touched."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.user_message)

    @property
    def user_message(self) -> str:
        """All problems, one a line, under a line that counts them."""
        count = len(self.problems)
        problems = f"{count} problem{'s' if count > 1 else ''}"
        head = f"{problems} in the configuration; nothing on the host was touched."
        return "\n".join([head, *(f"  - {problem}" for problem in self.problems)])


def show(value: Any) -> str:
    """A value as the operator wrote it, short enough for one line."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 120 else f"{text[:117]}…"


def suggest(word: str, known: Iterable[str]) -> str:
    """`` Did you mean "x"?`` where a known word is near, else nothing."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f' Did you mean "{near[0]}"?' if near else ""


def from_pydantic(
    error: ValidationError,
    prefix: str,
    known: Mapping[tuple[str | int, ...], Iterable[str]],
    secrets: Collection[tuple[str, ...]] = (),
    allowed: Mapping[str, str] | None = None,
) -> list[Problem]:
    """Pydantic's findings as problems.

    ``prefix`` stands before the path (``stt:`` or ``infra.yml: ``); ``known`` maps the path of an
    object to the keys it may have, for "did you mean". ``secrets`` are paths whose values never
    appear in a message. ``allowed`` maps the path of a value to what it may be.
    """
    return [_problem(each, prefix, known, secrets, allowed or {}) for each in error.errors()]


def _problem(
    details: ErrorDetails,
    prefix: str,
    known: Mapping[tuple[str | int, ...], Iterable[str]],
    secrets: Collection[tuple[str, ...]],
    allowed: Mapping[str, str],
) -> Problem:
    loc = details["loc"]
    place = prefix + ".".join(str(part) for part in loc)
    if details["type"] == "extra_forbidden":
        keys = sorted(known.get(_shape(loc[:-1]), ()))
        group, dot, key = str(loc[-1]).partition(".")
        if dot and group in keys:
            return Problem(
                place,
                f"is the key {key} of the group {prefix}{group}. Write it below that: "
                f"`{prefix}{group}: {{{key}: …}}`, or: pulumi config set --path '{place}' VALUE",
            )
        return Problem(
            place,
            f"unknown key.{suggest(str(loc[-1]), keys)}"
            + (f" Allowed: {', '.join(keys)}." if keys else ""),
        )
    if details["type"] == "missing":
        return Problem(place, "is missing. Add it.")
    message = details["msg"].removeprefix("Value error, ")
    if details["type"] == "value_error":
        return Problem(place, f"{message.rstrip('.')}.")
    secret = any(loc[: len(path)] == path for path in secrets)
    value = "its value (not shown)" if secret else show(details["input"])
    wanted = allowed.get(".".join(map(str, loc)), "").replace("`", "")
    why = f". Allowed: {wanted}" if wanted else f": {message}"
    return Problem(place, f"{value} is not allowed{why}.")


def _shape(loc: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """A path with the operator's own names and list positions as ``*``."""
    shape: list[str | int] = []
    for part in loc:
        named = shape and shape[-1] in ("domains", "machines", "profiles", "devices")
        shape.append("*" if isinstance(part, int) or named else part)
    return tuple(shape)
