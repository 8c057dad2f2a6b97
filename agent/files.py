"""Files of a machine: written beside and renamed, with owner and mode."""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from agent.difference import Difference, compare, compare_text
from agent.machine import Machine, StepError

#: What a file is called beside its place until it is whole.
PART = ".incus-stt"


@dataclass(frozen=True)
class File:
    """A file with its content; ``mode`` is octal, ``owner`` is ``user:group``."""

    path: str
    content: str
    mode: str = "0644"
    owner: str = "root:root"


def write(machine: Machine, file: File) -> None:
    """Give a file its content, mode and owner at once.

    Raises:
        OSError: there is no room, or its directory cannot be written.
        StepError: there is no such owner.
    """
    target = machine.path(file.path)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + PART)
    # One of a run that was cut off is not written to: it may have another owner, or be a link.
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as stream:
            stream.write(file.content)
            stream.flush()
            os.fsync(stream.fileno())
        chown(part, file.owner)
        part.chmod(int(file.mode, 8))
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def discard(machine: Machine, path: str) -> None:
    """Remove a file that :func:`write` wrote, and what a run that was cut off left beside it."""
    target = machine.path(path)
    for each in (target, target.with_name(target.name + PART)):
        try:
            each.unlink(missing_ok=True)
        except NotADirectoryError:
            continue  # its directory is a file by now


def chown(path: Path, owner: str) -> None:
    """Give a path to ``user:group``; tests that are not root leave it as it is.

    Raises:
        StepError: there is no such user or group.
    """
    _chown([path], owner)


def chown_all(path: Path, owner: str) -> None:
    """Give a path and everything below it to ``user:group``; links themselves, not their targets.

    Raises:
        StepError: there is no such user or group.
    """
    _chown([path, *path.rglob("*")], owner)


def _chown(paths: list[Path], owner: str) -> None:
    if os.geteuid():
        return
    user, _, group = owner.partition(":")
    try:
        uid, gid = pwd.getpwnam(user).pw_uid, grp.getgrnam(group or user).gr_gid
    except KeyError:
        raise StepError(f"The machine has no user and group {owner}.") from None
    for path in paths:
        os.chown(path, uid, gid, follow_symlinks=False)


def read(path: Path) -> str | None:
    """A file's text; None if there is none."""
    try:
        return path.read_bytes().decode(errors="replace")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def attributes(path: Path) -> str:
    """Mode and owner as a person reads them: ``mode 644, owner root:root``."""
    status = path.stat()
    try:
        user = pwd.getpwuid(status.st_uid).pw_name
    except KeyError:
        user = str(status.st_uid)
    try:
        group = grp.getgrgid(status.st_gid).gr_name
    except KeyError:
        group = str(status.st_gid)
    return f"mode {status.st_mode & 0o7777:o}, owner {user}:{group}"


def check_attributes(machine: Machine, path: str, mode: str, owner: str) -> list[Difference]:
    """Whether a path that is there has its mode and owner; the owner matters to root only."""
    found = attributes(machine.path(path))
    if os.geteuid():
        owner = found.rpartition(" ")[2]
    return compare(path, f"mode {int(mode, 8):o}, owner {owner}", found)


def check(machine: Machine, file: File) -> list[Difference]:
    """Where a file differs from what was written."""
    found = read(machine.path(file.path))
    differences = compare_text(file.path, file.content, found)
    if found is not None:
        differences += check_attributes(machine, file.path, file.mode, file.owner)
    return differences


def remove(path: Path) -> None:
    """Remove a file or a directory, whatever it is; nothing if it is not there."""
    if path.is_dir() and not path.is_symlink():
        import shutil  # not at the top: a check does without, and starts sooner

        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
