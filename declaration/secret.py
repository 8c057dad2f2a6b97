"""Secrets in data: a token stands for the value, which Pulumi puts in its place at the very end.

Tokens hold a random text of this process: nobody can write one into a setting or a file.
"""

from __future__ import annotations

import re
from secrets import token_hex

#: What marks the Commands, in the state, that make a value once, where Pulumi runs: the stack's id,
#: and secrets.
KEPT_ID, KEPT_SECRET = KEPT = ("id-1", "key-1")
_RANDOM = token_hex(8)
_TOKEN = re.compile(rf"\{{\{{secret:{_RANDOM}:([^}}]+)\}}\}}")


def secret(name: str) -> str:
    """The token of a secret of the stack (see ``Role.secrets``); it may stand within a text."""
    return f"{{{{secret:{_RANDOM}:{name}}}}}"


def secret_names(text: str) -> list[str]:
    """The secrets that a text names, each once, in order."""
    return list(dict.fromkeys(_TOKEN.findall(text)))


def fill_secrets(text: str, values: dict[str, str]) -> str:
    """The text with its secrets' values."""
    return _TOKEN.sub(lambda match: values[match[1]], text)
