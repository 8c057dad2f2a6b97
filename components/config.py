"""The one place that reads ``pulumi.Config``."""

from __future__ import annotations

from typing import Any

import pulumi
from pulumi.runtime import config as runtime_config

PROJECT = "stt"


def raw_setting(name: str, default: str) -> str:
    """A text of the stack before it is checked, for what starts before everything else."""
    return pulumi.Config(PROJECT).get(name) or default


def read_config() -> dict[str, Any]:
    """All ``stt:`` keys with their values, by the types of the settings.

    A value that is not of its type stays text, so that the check can name it.

    Raises:
        DeclarationError: a secret is not encrypted.
    """
    # Not at the top: the host is being read meanwhile.
    from declaration.problems import DeclarationError
    from declaration.stack_file import KINDS, in_plain_text, plain_secrets, typed

    prefix = f"{PROJECT}:"
    values: dict[str, Any] = {}
    for full, text in {**runtime_config.get_config_env(), **runtime_config.CONFIG.get()}.items():
        if full.startswith(prefix):
            key = full.removeprefix(prefix)
            values[key] = typed(text, KINDS.get(key, "string"))
            plain = [] if runtime_config.is_config_secret(full) else plain_secrets(key, values[key])
            if plain:
                raise DeclarationError([in_plain_text(each) for each in plain])
    return values


def fail(error: Exception) -> pulumi.RunError:
    """An error of the operator's as Pulumi shows it: only the message, without a traceback."""
    return pulumi.RunError(str(getattr(error, "user_message", error)))
