"""What is generated from the settings' fields: the schema, and the tables of every setting."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import yaml

from declaration.describe import Described, describe
from declaration.generated import Parts, table
from declaration.settings import Settings
from declaration.stack_file import secret_command
from engines import ENGINES

#: The settings that README names: where it runs, and what transcribes.
FIRST = ("connection", "engine", "model", "quantization", "language")


def settings() -> list[Described]:
    """Every setting; the names of the engines are put in here."""
    return [_with_engines(each) for each in describe(Settings)]


def _with_engines(each: Described) -> Described:
    if each.key != "engine":
        return each
    return each.saying(", ".join(f"`{name}`" for name in ENGINES))


def schema(described: Iterable[Described]) -> str:
    """The ``config:`` block of ``Pulumi.yaml``."""
    config: dict[str, Any] = {}
    for each in described:
        if each.nested:
            continue
        # Nothing shows Markdown here.
        text = f"{each.meaning}. Allowed: {each.allowed}".replace("`", "")
        item: dict[str, Any] = {"type": each.kind}
        if each.kind == "array":
            item["items"] = {"type": "string"}
        config[f"stt:{each.key}"] = {**item, "default": each.default, "description": text}
    text = yaml.safe_dump({"config": config}, sort_keys=False, allow_unicode=True, width=10_000)
    return text.rstrip("\n")


def full_tables(described: Iterable[Described]) -> str:
    """Every setting with its default, for ``docs/settings.md``; a group has a table of its own."""
    every = list(described)
    parts = [_table(each for each in every if not each.nested)]
    for group in (each for each in every if each.group):
        members = [each for each in every if each.key.startswith(f"{group.key}.")]
        parts.append(f"### `stt:{group.key}`\n\n{group.meaning}.\n\n{_table(members)}")
    return "\n\n".join(parts)


def _table(rows: Iterable[Described]) -> str:
    return table(
        ("setting", "default", "allowed", "meaning"),
        (
            (f"`stt:{each.key}`", _default(each), _cell(each.allowed), _cell(_meaning(each)))
            for each in rows
        ),
    )


def first_table(described: Iterable[Described]) -> str:
    """The settings that a newcomer wants first, for ``README.md``."""
    found = {each.key: each for each in described}
    return table(
        ("setting", "default", "meaning"),
        ((f"`stt:{key}`", _default(found[key]), _cell(_meaning(found[key]))) for key in FIRST),
    )


def _meaning(each: Described) -> str:
    return each.meaning + (f"; set it with `{secret_command(each.key)}`" if each.secret else "")


def _default(each: Described) -> str:
    if each.default is None:
        return "not set"
    text = each.default if isinstance(each.default, str) else json.dumps(each.default)
    return f"`{text}`" if text else "empty"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def parts() -> Parts:
    """Every generated part by its file and its name."""
    described = settings()
    return {
        "Pulumi.yaml": {"settings": schema(described)},
        "docs/settings.md": {"settings": full_tables(described)},
        "README.md": {"first settings": first_table(described)},
    }
