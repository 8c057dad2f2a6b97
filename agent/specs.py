"""Specs as JSON and back: dataclasses, without what has its default; unknown keys are an error."""

from __future__ import annotations

import dataclasses
import sys
import types
from collections.abc import Mapping, Sequence
from functools import cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    T = TypeVar("T")


class SpecError(ValueError):
    """A spec is not of its type."""


def encode(value: Any) -> Any:
    """A dataclass as what JSON can hold; fields that have their default are left out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        tag = getattr(type(value), "tag", None)
        fields = {} if tag is None else {"action": tag}
        for field in dataclasses.fields(value):
            item = getattr(value, field.name)
            if not _is_default(field, item):
                fields[field.name] = encode(item)
        return fields
    if isinstance(value, Mapping):
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    return value


def _is_default(field: dataclasses.Field[Any], value: Any) -> bool:
    if field.default is not dataclasses.MISSING:
        return bool(value == field.default)
    if field.default_factory is not dataclasses.MISSING:
        return bool(value == field.default_factory())
    return False


@cache
def field_types(cls: type) -> dict[str, Any]:
    """The type of each field, as ``typing.get_type_hints`` tells it; ``Any`` is ``object``."""
    found: dict[str, Any] = {}
    names = {field.name for field in dataclasses.fields(cls)}
    for base in reversed(cls.__mro__):
        known = {**vars(sys.modules[base.__module__]), "Any": object}
        for name, text in vars(base).get("__annotations__", {}).items():
            if name in names:
                found[name] = eval(text, known)  # noqa: S307  # of the agent's own source
    return found


def decode(kind: type[T], data: Any, *, lenient: bool = False) -> T:
    """A dataclass from what :func:`encode` made; ``lenient`` leaves unknown keys out.

    Raises:
        SpecError: a key is unknown or missing, or a value has another type.
    """
    found: T = _decode(kind, data, kind.__name__, lenient)
    return found


def _decode(kind: Any, data: Any, place: str, lenient: bool) -> Any:
    origin = getattr(kind, "__origin__", None)
    args: tuple[Any, ...] = getattr(kind, "__args__", ())
    if isinstance(kind, types.UnionType):
        return _decode_union(args, data, place, lenient)
    if dataclasses.is_dataclass(kind):
        return _decode_fields(kind, data, place, lenient)
    if origin in (list, tuple, Sequence):
        if not isinstance(data, list):
            raise SpecError(f"{place}: expected a list")
        item_kind, items = args[0], enumerate(data)
        return [_decode(item_kind, item, f"{place}[{n}]", lenient) for n, item in items]
    if origin in (dict, Mapping):
        if not isinstance(data, dict):
            raise SpecError(f"{place}: expected an object")
        return {k: _decode(args[1], item, f"{place}.{k}", lenient) for k, item in data.items()}
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if not isinstance(data, kind) or (kind is int and isinstance(data, bool)):
        raise SpecError(f"{place}: expected {kind.__name__}")
    return data


def _decode_union(args: Sequence[Any], data: Any, place: str, lenient: bool) -> Any:
    if data is None and type(None) in args:
        return None
    tag = data.get("action") if isinstance(data, dict) else None
    for arg in args:
        if tag is not None and getattr(arg, "tag", None) == tag:
            return _decode(arg, data, place, lenient)
    failures: list[str] = []
    for arg in args:
        if arg is type(None):
            continue
        try:
            return _decode(arg, data, place, lenient)
        except SpecError as error:
            failures.append(str(error))
    raise SpecError("; ".join(failures) or f"{place}: unexpected value")


def _decode_fields(kind: Any, data: Any, place: str, lenient: bool) -> Any:
    if not isinstance(data, dict):
        raise SpecError(f"{place}: expected an object")
    if data.get("action", "") == getattr(kind, "tag", None):
        data = {key: data[key] for key in data if key != "action"}
    hints = field_types(kind)
    names = {field.name for field in dataclasses.fields(kind)}
    if lenient:
        data = {key: item for key, item in data.items() if key in names}
    if unknown := sorted(set(data) - names):
        raise SpecError(f"{place}: unknown key {', '.join(unknown)}")
    values = {k: _decode(hints[k], item, f"{place}.{k}", lenient) for k, item in data.items()}
    try:
        return kind(**values)
    except TypeError as error:
        raise SpecError(f"{place}: {error}") from None
