"""Where something is not as it should be, field by field."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Fields whose values may be secrets: operators put such into ``environment.*``.
_HIDDEN = r"(?i)key|token|secret|passw|credential"
NOT_THERE, UNSET = "not there", "(none)"


@dataclass(frozen=True)
class Difference:
    """One field: what was found and what is wanted."""

    field: str
    found: str
    wanted: str

    def __str__(self) -> str:
        return f"{self.field}: {self.found} -> {self.wanted}"


def missing(field: str) -> Difference:
    """The whole thing is not there."""
    return Difference(field, NOT_THERE, "there")


def compare(field: str, wanted: Any, found: Any) -> list[Difference]:
    """One plain value."""
    return [] if wanted == found else [_difference(field, found, wanted)]


def _difference(field: str, found: Any, wanted: Any, name: str = "") -> Difference:
    """``name`` is what tells whether the values may be secrets."""
    if re.search(_HIDDEN, name):
        return Difference(field, "(another value, not shown)", "(not shown)")
    return Difference(field, _show(found), _show(wanted))


def _show(value: Any) -> str:
    if value is None or value == "":
        return UNSET
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {item}" for key, item in sorted(value.items())) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(str, value)) + "]"
    text = str(value)
    return text if len(text) <= 100 else f"{text[:97]}…"


def compare_object(
    wanted: Mapping[str, Any], found: Mapping[str, Any], computed: str
) -> list[Difference]:
    """Where an Incus object differs from its desired state, in the fields of that state.

    ``computed`` is a regular expression: configuration keys that Incus sets by itself, which are
    left as they are where the desired state does not name them.
    """
    differences: list[Difference] = []
    for field in sorted(wanted):
        want, have = wanted[field], found.get(field)
        if _is_list_of_objects(want) and _is_list_of_objects(have or []):
            differences += _compare_lists(field, want, have or [])
            continue
        if not isinstance(want, Mapping):
            if _plain(want) != _plain(have):
                differences.append(_difference(field, have, want))
            continue
        have = have or {}
        for key in sorted({*want, *have}):
            name = f"{field}.{key}"
            if key not in want and field == "config" and re.match(computed, key):
                continue
            one, other = want.get(key), have.get(key)
            if isinstance(one, Mapping) and isinstance(other, Mapping):
                differences += [
                    _difference(f"{name}.{part}", other.get(part), one.get(part), part)
                    for part in sorted({*one, *other})
                    if _plain(one.get(part)) != _plain(other.get(part))
                ]
            elif _plain(one) != _plain(other):
                differences.append(_difference(name, other, one, key))
    return differences


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(each, Mapping) for each in value)


def _compare_lists(
    field: str, wanted: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]]
) -> list[Difference]:
    """Which objects somebody added or took away; their order does not matter."""
    want, have = ([_filled(each) for each in listed] for listed in (wanted, found))
    gone = [_difference(field, None, each) for each in want if each not in have]
    return gone + [_difference(field, each, None) for each in have if each not in want]


def _filled(value: Mapping[str, Any]) -> dict[str, Any]:
    """What has a value."""
    return {key: item for key, item in _plain(value).items() if item}


def _plain(value: Any) -> Any:
    """Incus knows texts only, and an empty text is the same as no value."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return "" if value is None else str(value)


def compare_text(field: str, wanted: str, found: str | None) -> list[Difference]:
    """Where a text differs, by its lines; None is a text that is not there."""
    if wanted == found:
        return []
    if found is None:
        return [missing(field)]
    have, want = found.splitlines(), wanted.splitlines()
    if len(want) <= 1 and len(have) <= 1:
        return [_difference(field, found.strip(), wanted.strip())]
    from difflib import SequenceMatcher  # not at the top: a check seldom needs it

    differences: list[Difference] = []
    for kind, i, j, k, m in SequenceMatcher(a=have, b=want, autojunk=False).get_opcodes():
        if kind == "equal":
            continue
        gone, new = have[i:j], want[k:m]
        for line in range(max(len(gone), len(new))):
            one = gone[line] if line < len(gone) else "(no such line)"
            other = new[line] if line < len(new) else "(no such line)"
            differences.append(_difference(f"{field} line", one, other, one + other))
    return differences or [Difference(field, "other line ends", "as written")]
