"""Where ``incus`` runs."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Literal

#: Environment variable: a preview is made to be compared with another one. It does not read the
#: host, and has the names of secrets where their values would be.
UNREAD = "STT_HOST_UNREAD"
_WORD = re.compile(r"[A-Za-z0-9_][\w.@%:/+-]*")


@dataclass(frozen=True)
class Connection:
    """Where ``incus`` runs: ``local``, ``incus:REMOTE`` or ``ssh:DESTINATION``."""

    kind: Literal["local", "incus", "ssh"]
    target: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.target}" if self.target else self.kind


def parse_connection(text: str) -> Connection:
    """The connection that ``stt:connection`` names.

    Raises:
        ValueError: it names none.
    """
    if text == "local":
        return Connection("local")
    kind, _, target = text.partition(":")
    if kind == "ssh" and _WORD.fullmatch(target):
        return Connection("ssh", target)
    if kind == "incus" and _WORD.fullmatch(target):
        return Connection("incus", target)
    raise ValueError(
        f"{json.dumps(text)} is not allowed. Use local, incus:REMOTE (a name of `incus remote "
        "list`), or ssh:USER@HOST"
    )
