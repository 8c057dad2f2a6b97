"""Values as they stand on Pulumi's wire: secrets and unknowns are marked, and differ by path."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

#: Stands in a preview for a value that only `up` will know.
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
_MARK = "4dabf18193072939515e22adb298388d"
_SECRET_MARK = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105  # what marks them


def is_secret(value: Any) -> bool:
    """Whether a value is marked as a secret."""
    return isinstance(value, dict) and value.get(_MARK) == _SECRET_MARK


def holds_secret(value: Any) -> bool:
    """Whether there is a secret anywhere in a value."""
    if isinstance(value, dict):
        return is_secret(value) or any(map(holds_secret, value.values()))
    return isinstance(value, list) and any(map(holds_secret, value))


def secret(value: Any) -> Any:
    """A value, marked as a secret."""
    return {_MARK: _SECRET_MARK, "value": value}


def plain(value: Any) -> Any:
    """A value without its marks."""
    if is_secret(value):
        return plain(value["value"])
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list) else value


def differences(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Paths at which two values differ, each with ADD, DELETE or UPDATE."""
    if old == new:
        return
    if is_secret(old) and is_secret(new):
        old, new = old["value"], new["value"]
    pairs: list[tuple[str, Any, Any]] = []
    if isinstance(old, dict) and isinstance(new, dict) and not (is_secret(old) or is_secret(new)):
        names = [*old, *(name for name in new if name not in old)]
        pairs = [(_step(path, name), old.get(name), new.get(name)) for name in names]
    elif isinstance(old, list) and isinstance(new, list):
        length = max(len(old), len(new))
        left, right = ([*side, *[None] * (length - len(side))] for side in (old, new))
        pairs = [(f"{path}[{i}]", left[i], right[i]) for i in range(length)]
    else:
        yield path, "ADD" if old is None else "DELETE" if new is None else "UPDATE"
    for below, before, after in pairs:
        yield from differences(before, after, below)


def _step(path: str, name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        return f'{path}["{name}"]'
    return f"{path}.{name}" if path else name
