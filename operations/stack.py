"""A stack's declaration, read without Pulumi: its file and Pulumi.yaml but for encrypted values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from roles import ROLES

from components.config import typed
from declaration.problems import DeclarationError, Problem
from stack.declare import Declaration, declare

ROOT = Path(__file__).resolve().parent.parent


def read_values(stack: str) -> dict[str, Any]:
    """The stack's settings by their keys, without ``stt:``.

    Raises:
        DeclarationError: there is no such stack.
    """
    project = yaml.safe_load((ROOT / "Pulumi.yaml").read_text(encoding="utf-8"))
    file = ROOT / project["stackConfigDir"] / f"Pulumi.{stack}.yaml"
    if not file.is_file():
        known = sorted(path.name.split(".")[1] for path in file.parent.glob("Pulumi.*.yaml"))
        message = f"there is no stack {stack}. Stacks: {', '.join(known)}."
        raise DeclarationError([Problem("STACK", message)])
    schema = project["config"]
    values = {key: item["default"] for key, item in schema.items()}
    given = (yaml.safe_load(file.read_text(encoding="utf-8")) or {}).get("config") or {}
    for key, value in given.items():
        if isinstance(value, dict) and set(value) == {"secure"}:
            continue
        # `pulumi config set` writes every value as a text.
        kind = schema.get(key, {}).get("type", "string")
        values[key] = typed(value, kind) if isinstance(value, str) else value
    return {
        key.removeprefix("stt:"): value for key, value in values.items() if key.startswith("stt:")
    }


def read_stack(stack: str) -> Declaration:
    """The stack's declaration.

    Raises:
        DeclarationError: with every problem of it.
    """
    return declare(read_values(stack), ROLES, ROOT)
