"""Fail where a variable has no reader in the program that is installed.

Its arguments are the program's name, and the readers by variable as JSON.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any


def of_settings(model: Any, prefix: str = "") -> Iterator[str]:
    """The variables of a class of pydantic's settings; a nested field's follow two underscores."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        variable = (field.alias or f"{prefix}{name}").upper()
        yield variable
        if isinstance(inner, type) and hasattr(inner, "model_fields"):
            yield from of_settings(inner, f"{variable}__")


def known_to(reader: str) -> Callable[[str], bool]:
    """A function that says whether a reader knows a variable."""
    kind, _, name = reader.partition(":")
    if kind == "text":
        spec = importlib.util.find_spec(name)
        places = spec.submodule_search_locations if spec else None
        files = [file for place in places or () for file in pathlib.Path(place).rglob("*.py")]
        text = "\n".join(file.read_text("utf-8", "replace") for file in files)
        return lambda variable: f'"{variable}"' in text or f"'{variable}'" in text
    found = getattr(importlib.import_module(kind), name)
    names = set(of_settings(found)) if isinstance(found, type) else set(found)
    return names.__contains__


def main(program: str, asked: str) -> None:
    """Check each variable.

    Raises:
        SystemExit: some have no reader.
    """
    readers: dict[str, str] = json.loads(asked)
    checks = {reader: known_to(reader) for reader in set(readers.values())}
    unknown = [name for name, reader in readers.items() if not checks[reader](name)]
    if unknown:
        sys.exit(
            f"{program}, as it is installed, reads no {', '.join(unknown)}: the setting would have "
            "no effect. The running service was not touched. This is a defect of incus-stt: report "
            "it."
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
