"""What was applied in this machine: a file for each step, which only root reads.

A step that begins leaves a mark, ``NAME.begun``; the record itself is written last and renamed into
place. A mark that is still there tells that the step was cut off.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, unquote

from agent.files import File, write
from agent.machine import STATE, Machine

STEPS = f"{STATE}/steps"
SALT = f"{STATE}/salt"


@dataclass(frozen=True)
class Record:
    """A step that was applied. ``spec`` is empty for a secret one, which has ``digest`` only.

    ``made`` is what the kind noted for ``check`` and ``remove``. ``stack`` is the id of the stack
    that applied it.
    """

    step: str
    kind: str
    stack: str
    digest: str
    spec: Mapping[str, Any] = field(default_factory=dict)
    made: Mapping[str, Any] = field(default_factory=dict)
    secret: bool = False
    applied_at: str = ""


def salted(machine: Machine, text: str) -> str:
    """A digest of a secret that tells nothing outside of this machine."""
    place = machine.path(SALT)
    if not place.exists():
        write(machine, File(SALT, secrets.token_hex(32), "0600"))
    salt = place.read_text("ascii")
    return hashlib.blake2b(text.encode(), key=salt.encode()[:64], digest_size=16).hexdigest()


def digest_of(spec: Mapping[str, Any]) -> str:
    """A digest of a spec."""
    text = json.dumps(spec, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _file(step: str, suffix: str) -> str:
    return f"{STEPS}/{quote(step, safe='')}{suffix}"


def begin(machine: Machine, step: str) -> None:
    """Leave the mark of a step that has begun."""
    write(machine, File(_file(step, ".begun"), datetime.now(UTC).isoformat(), "0600"))


def unmark(machine: Machine, step: str) -> None:
    """Take the mark away: the step ended, or changed nothing."""
    machine.path(_file(step, ".begun")).unlink(missing_ok=True)


def save(machine: Machine, record: Record) -> None:
    """Write the record of a step that was applied, and take its mark away."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    text = json.dumps({**vars(record), "applied_at": now}, ensure_ascii=False)
    write(machine, File(_file(record.step, ".json"), text, "0600"))
    unmark(machine, record.step)


def load(machine: Machine, step: str) -> Record | None:
    """The record of a step, where it was applied."""
    try:
        return Record(**json.loads(machine.path(_file(step, ".json")).read_text("utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def forget(machine: Machine, step: str) -> None:
    """Remove a step's record and mark."""
    machine.path(_file(step, ".json")).unlink(missing_ok=True)
    unmark(machine, step)


def records(machine: Machine) -> Iterator[Record]:
    """Every step that was applied, by name."""
    directory = machine.path(STEPS)
    for path in sorted(directory.glob("*.json")) if directory.is_dir() else ():
        if record := load(machine, unquote(path.name.removesuffix(".json"))):
            yield record


def unfinished(machine: Machine) -> list[str]:
    """The steps that were cut off."""
    directory = machine.path(STEPS)
    found = sorted(directory.glob("*.begun")) if directory.is_dir() else []
    return [unquote(path.name.removesuffix(".begun")) for path in found]
