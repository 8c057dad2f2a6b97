"""Names, sizes and times of what was made once, to see later whether it is as it was made."""

from __future__ import annotations

import os
from pathlib import Path

from agent.difference import Difference, missing
from agent.files import File, read, write
from agent.machine import Machine

#: How many changed files of a directory are named.
_NAMED = 4
_IGNORED = "__pycache__"


def seal_file(path: str, directory: bool) -> str:
    """Where the seal of a path is: in a directory, or beside a file."""
    return f"{path}/.seal" if directory else f"{path}.seal"


def manifest(path: Path) -> str:
    """Every file below a path with its size and time, a line each; empty if it is not there.

    A link counts by its target's name: what the target is may change with the distribution.
    """
    if path.is_dir():
        return "".join(sorted(_lines(str(path), "")))
    try:
        status = path.stat()
    except OSError:
        return ""
    return f". {status.st_size} {status.st_mtime_ns}\n"


def _lines(directory: str, prefix: str) -> list[str]:
    lines: list[str] = []
    with os.scandir(directory) as entries:
        for entry in entries:
            name = prefix + os.fsencode(entry.name).decode(errors="backslashreplace")
            if entry.name == _IGNORED or name in (".seal", ".seal.incus-stt"):
                continue
            try:
                if entry.is_symlink():
                    there = "there" if os.path.exists(entry.path) else "broken"
                    target = os.fsencode(os.readlink(entry.path)).decode(errors="backslashreplace")
                    lines.append(f"{name} -> {target} {there}\n")
                    continue
                if entry.is_dir(follow_symlinks=False):
                    lines += _lines(entry.path, f"{name}/")
                    continue
                status = entry.stat()
            except OSError:
                lines.append(f"{name} broken\n")
                continue
            lines.append(f"{name} {status.st_size} {status.st_mtime_ns}\n")
    return lines


def seal(machine: Machine, path: str) -> None:
    """Note what a path holds; it is complete from now on."""
    place = machine.path(path)
    write(machine, File(seal_file(path, place.is_dir()), manifest(place), "0600"))


def _noted(machine: Machine, path: str) -> str | None:
    return read(machine.path(seal_file(path, machine.path(path).is_dir())))


def is_sealed(machine: Machine, path: str) -> bool:
    """Whether a path is complete and as it was made."""
    noted = _noted(machine, path)
    return noted is not None and noted == manifest(machine.path(path))


def was_sealed(machine: Machine, path: str) -> bool:
    """Whether a path was complete once."""
    return _noted(machine, path) is not None


def check(machine: Machine, path: str) -> list[Difference]:
    """Where a path differs from what was made."""
    place = machine.path(path)
    if not place.exists():
        return [missing(path)]
    noted = _noted(machine, path)
    if noted is None:
        return [Difference(path, "not complete", "as made")]
    now = manifest(place)
    if noted == now:
        return []
    changed = sorted({line.split(" ")[0] for line in set(noted.split("\n")) ^ set(now.split("\n"))})
    names = " ".join(filter(None, changed[:_NAMED]))
    more = f" and {len(changed) - _NAMED} more" if len(changed) > _NAMED else ""
    return [Difference(path, f"changed: {names}{more}", "as made")]
