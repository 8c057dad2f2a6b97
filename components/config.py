"""The one place that reads ``pulumi.Config``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pulumi
import yaml
from pulumi.runtime import config as runtime_config

from declaration.problems import DeclarationError, Problem

PROJECT = "stt"
#: Settings that may only stand encrypted in a stack's file.
SECRETS = ("apiKey", "adminPassword")


def read_config(root: Path) -> dict[str, Any]:
    """All ``stt:`` keys with their values, typed as Pulumi.yaml declares them.

    A value that is not of its type stays text, so that the check can name it.
    """
    schema = yaml.safe_load((root / "Pulumi.yaml").read_text(encoding="utf-8"))["config"]
    kinds = {key.removeprefix(f"{PROJECT}:"): item["type"] for key, item in schema.items()}
    prefix = f"{PROJECT}:"
    values: dict[str, Any] = {}
    for full, text in {**runtime_config.get_config_env(), **runtime_config.CONFIG.get()}.items():
        if full.startswith(prefix):
            key = full.removeprefix(prefix)
            values[key] = typed(text, kinds.get(key, "string"))
            if key in SECRETS and text and not runtime_config.is_config_secret(full):
                raise DeclarationError([_in_plain_text(full)])
    return values


def _in_plain_text(setting: str) -> Problem:
    return Problem(
        setting,
        "is in plain text (its value is not shown). Choose another one, and encrypt it: "
        f"pulumi config set --secret {setting}.",
    )


def typed(text: str, kind: str) -> Any:
    """A value of a stack by the type that Pulumi.yaml declares; text where it is not of that."""
    if kind == "string":
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def fail(error: Exception) -> pulumi.RunError:
    """An error of the operator's as Pulumi shows it: the message alone, no traceback."""
    return pulumi.RunError(str(getattr(error, "user_message", error)))
