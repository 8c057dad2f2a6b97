"""What was applied in this machine: a file for each step, which only root reads.

A step that begins leaves a mark, ``NAME.begun``; the record itself is written last and renamed into
place. A mark that is still there tells that the step was cut off. It has the files that the step
has written since it was finished last, so that none of them is forgotten.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields

from agent.files import File, discard, read, write
from agent.machine import PROGRAMS, STATE, Machine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

STEPS = f"{STATE}/steps"
SALT = f"{STATE}/salt"
_NAMED = rf"{PROGRAMS}/[\w.+/-]+"


@dataclass(frozen=True)
class Record:
    """A step that was applied. ``spec`` is empty for a secret one, which has ``digest`` only.

    ``made`` is what the kind noted for ``check`` and ``remove``. ``stack`` is the id of the stack
    that applied it. ``written`` are its files (``Kind.written``). ``names`` are programs that a
    secret spec names.
    """

    step: str
    kind: str
    stack: str
    digest: str
    spec: Mapping[str, Any] = field(default_factory=dict)
    made: Mapping[str, Any] = field(default_factory=dict)
    secret: bool = False
    applied_at: str = ""
    written: Sequence[str] = ()
    names: Sequence[str] = ()


def salted(machine: Machine, text: str) -> str:
    """A digest of a secret that tells nothing outside of this machine.

    The salt is made by the first step that needs it (``make_salt``); without it, the digest is
    another one.
    """
    return salted_with(salt(machine), text)


def salt(machine: Machine) -> str:
    """The machine's salt; empty if it has none yet."""
    return read(machine.path(SALT)) or ""


def salted_with(salt: str, text: str) -> str:
    """A digest of a text that somebody without the salt cannot guess it from."""
    import hashlib  # not at the top: a check that compares no secret starts sooner

    return hashlib.blake2b(text.encode(), key=salt.encode()[:64], digest_size=16).hexdigest()


def make_salt(machine: Machine) -> None:
    """Make this machine's salt, once."""
    with machine.lock("salt"):
        if not machine.path(SALT).exists():
            import secrets

            write(machine, File(SALT, secrets.token_hex(32), "0600"))


def programs_in(text: str) -> list[str]:
    """The paths of programs that stand in a text."""
    return sorted(set(re.findall(_NAMED, text)))


def digest_of(spec: Mapping[str, Any]) -> str:
    """A digest of a spec."""
    import hashlib

    text = json.dumps(spec, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _file(step: str, suffix: str) -> str:
    return f"{STEPS}/{step.replace('/', '%2F')}{suffix}"


def _step(path: Path, suffix: str) -> str:
    return path.name.removesuffix(suffix).replace("%2F", "/")


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())


def begin(machine: Machine, step: str, written: Iterable[str] = ()) -> bool:
    """Leave the mark of a step that has begun; whether there was none of an earlier run."""
    state = machine.path(STATE)
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    state.chmod(0o700)
    each, mark = load(machine, step), _file(step, ".begun")
    fresh = not machine.path(mark).exists()
    paths = {*written, *(each.written if each else ()), *touched(machine, step)}
    write(machine, File(mark, json.dumps({"at": _now(), "written": sorted(paths)}), "0600"))
    return fresh


def touched(machine: Machine, step: str) -> set[str]:
    """The files that a step that has begun has written, now or in runs that were cut off."""
    try:
        return set(json.loads(read(machine.path(_file(step, ".begun"))) or "{}").get("written", ()))
    except (ValueError, TypeError, AttributeError):
        return set()


def unmark(machine: Machine, step: str) -> None:
    """Take the mark away: the step ended, or changed nothing."""
    machine.path(_file(step, ".begun")).unlink(missing_ok=True)


def save(machine: Machine, record: Record) -> None:
    """Write the record of a step that was applied. Its mark goes once the step has finished."""
    text = json.dumps({**vars(record), "applied_at": _now()}, ensure_ascii=False)
    write(machine, File(_file(record.step, ".json"), text, "0600"))


def load(machine: Machine, step: str) -> Record | None:
    """The record of a step, where it was applied; what another agent noted more is left out."""
    names = {each.name for each in fields(Record)}
    try:
        data = json.loads(machine.path(_file(step, ".json")).read_text("utf-8"))
        return Record(**{name: data[name] for name in data if name in names})
    except (FileNotFoundError, ValueError, TypeError):
        return None


def forget(machine: Machine, step: str) -> None:
    """Remove a step's record and mark."""
    for suffix in (".json", ".begun"):  # the mark last
        discard(machine, _file(step, suffix))


def texts(machine: Machine) -> str:
    """All records as they stand, also those that this agent cannot read."""
    directory = machine.path(STEPS)
    found = sorted(directory.glob("*.json")) if directory.is_dir() else []
    return "\n".join(filter(None, map(read, found)))


def records(machine: Machine) -> Iterator[Record]:
    """Every step that was applied, by name."""
    directory = machine.path(STEPS)
    for path in sorted(directory.glob("*.json")) if directory.is_dir() else ():
        if record := load(machine, _step(path, ".json")):
            yield record


def unfinished(machine: Machine) -> list[str]:
    """The steps that were cut off."""
    directory = machine.path(STEPS)
    found = sorted(directory.glob("*.begun")) if directory.is_dir() else []
    return [_step(path, ".begun") for path in found]
