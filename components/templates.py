"""Scripts for machines, rendered from ``templates/``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

ROOT = Path(__file__).resolve().parent.parent

_environment = Environment(
    loader=FileSystemLoader(ROOT / "templates"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,  # noqa: S701  # shell and unit files: every value goes through `sh` or `unit`
)


def unit_value(value: object) -> str:
    """A value as one quoted word of a systemd unit or environment file.

    ``%`` (specifiers) stays as it is: environment files have none, and units get no such value.
    """
    text = str(value)
    if any(ord(character) < 32 for character in text):
        raise ValueError(f"control characters cannot stand in a unit file: {text!r}")
    return (
        '"'
        + text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$").replace("`", "\\`")
        + '"'
    )


def quote(value: object) -> str:
    """A value as one word of a shell: the filter ``sh``."""
    return shlex.quote(str(value))


_environment.filters["sh"] = quote
_environment.filters["unit"] = unit_value


def render(template: str, **values: Any) -> str:
    """A template as text; a value that it needs and does not get is an error."""
    return _environment.get_template(template).render(**values)


def script(template: str, *, service: str, **values: Any) -> str:
    """A script for ``sh -eu`` on stdin: it is read whole before it runs.

    Of the scripts of one ``service`` in a machine one runs at a time.
    """
    prelude = render("prelude.sh")
    body = render(template, service=service, **values).rstrip("\n")
    return f"{prelude}\nmain() {{\n{body}\n}}\nlock {quote(service)}\nmain </dev/null\n"
