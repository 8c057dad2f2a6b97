"""What the fields of the settings say about themselves: key, type, default, allowed, meaning."""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Le
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from declaration.field_types import is_secret

KINDS: dict[Any, str] = {bool: "boolean", int: "integer", str: "string", IPv4Address: "string"}


@dataclass(frozen=True)
class Described:
    """One setting.

    ``key`` is its path without ``stt:`` (``ollama.port``); ``kind`` its type in ``Pulumi.yaml``;
    ``default`` as plain data (``None``: not set); ``group``: it has settings of its own.
    """

    key: str
    kind: str
    default: Any
    allowed: str
    meaning: str
    secret: bool
    group: bool

    @property
    def nested(self) -> bool:
        """Whether it belongs to a group."""
        return "." in self.key

    def saying(self, allowed: str) -> Described:
        """The same with another text of what is allowed."""
        return replace(self, allowed=allowed)


def describe(model: type[BaseModel], prefix: str = "") -> Iterator[Described]:
    """Every setting of a model in the order of its fields; a group before what is in it.

    Raises:
        TypeError: a field has a type that ``Pulumi.yaml`` does not know.
        ValueError: a field has no description, or does not say what is allowed.
    """
    for name, field in model.model_fields.items():
        key = prefix + name
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        default = field.get_default(call_default_factory=True)
        kind, group = _kind(key, field.annotation)
        allowed = str(extra.get("allowed") or "") or _allowed(field)
        if group:
            allowed = f"an object with the keys {', '.join(f'`{k}`' for k in group.model_fields)}"
        if not field.description or not allowed:
            raise ValueError(f"{key}: say in its setting(…) what it means, and what is allowed")
        yield Described(
            key,
            kind,
            {} if group else str(default) if isinstance(default, IPv4Address) else default,
            allowed,
            field.description,
            is_secret(field),
            group is not None,
        )
        if group:
            yield from describe(group, f"{key}.")


def known_keys(model: type[BaseModel]) -> dict[tuple[str | int, ...], list[str]]:
    """The keys of a model and of each group in it, by the group's path."""
    keys: dict[tuple[str | int, ...], list[str]] = {(): list(model.model_fields)}
    for each in describe(model):
        if each.nested:
            group, _, name = each.key.rpartition(".")
            keys.setdefault(tuple(group.split(".")), []).append(name)
    return keys


def secret_paths(model: type[BaseModel]) -> set[tuple[str, ...]]:
    """The paths of the settings that are secret."""
    return {tuple(each.key.split(".")) for each in describe(model) if each.secret}


def _plain(annotation: Any) -> Any:
    """A type without its checks, and without ``None``."""
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        [only] = [each for each in get_args(annotation) if each is not types.NoneType]
        return _plain(only)
    return annotation


def _kind(key: str, annotation: Any) -> tuple[str, type[BaseModel] | None]:
    """The type in ``Pulumi.yaml``, and the model of a group."""
    plain = _plain(annotation)
    if get_origin(plain) is Literal:
        return "string", None
    if get_origin(plain) is list:
        return "array", None
    if isinstance(plain, type) and issubclass(plain, BaseModel):
        return "object", plain
    if plain in KINDS:
        return KINDS[plain], None
    raise TypeError(f"{key}: {annotation} has no type of Pulumi.yaml; add it to KINDS")


def _allowed(field: FieldInfo) -> str:
    """What a field's type allows, in words; empty: the field has to say it."""
    plain = _plain(field.annotation)
    if plain is bool:
        return "`true`, `false`"
    if get_origin(plain) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(plain))
    least = [check.ge for check in field.metadata if isinstance(check, Ge)]
    most = [check.le for check in field.metadata if isinstance(check, Le)]
    return f"{least[0]} to {most[0]}" if least and most else ""
