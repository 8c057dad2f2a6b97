"""Which files of a path are sent to a machine, and the digest that names them there.

In a directory of this repository only the files that git tracks count: running the tests leaves
bytecode there, which is not a change. In an operator's directory every file counts, except for
bytecode. A file that a symbolic link names counts as that file; an empty directory does not count.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from declaration.problems import DeclarationError, Problem

#: The directory of this repository.
ROOT = Path(__file__).resolve().parent.parent
#: Variables with which git would look at another repository; hooks of git set them.
_GIT_VARIABLES = ("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE", "GIT_PREFIX")
#: Seconds in which git lists the files; a disk of a network may hang.
_GIT_DEADLINE = 60.0


def files(path: Path) -> list[Path]:
    """The files of ``path`` that are hashed and sent, sorted; of a file, the file itself.

    Raises:
        DeclarationError: there is nothing at ``path``, or no file in it.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        problem = "there is no such file or directory. Check the path."
        raise DeclarationError([Problem(str(path), problem)])
    found = sorted(_walk(path))
    directory = path.resolve()
    if directory.is_relative_to(ROOT):
        known = tracked(ROOT)
        place = directory.relative_to(ROOT)
        # A directory without tracked files is the operator's own, or there is no git.
        found = [
            file for file in found if (place / file.relative_to(path)).as_posix() in known
        ] or found
    if not found:
        raise DeclarationError([Problem(str(path), "the directory has no files. Add some.")])
    for file in found:
        name = file.relative_to(path).as_posix()
        if "\n" in name:
            problem = f"the file name {name!r} has a line break. Rename the file."
            raise DeclarationError([Problem(str(path), problem)])
    return found


def digest(path: Path) -> str:
    """Twelve hexadecimal digits that change with any file's content, name or executable bit.

    Raises:
        DeclarationError: there is nothing at ``path``, or no file in it.
    """
    total = hashlib.sha256()
    base = path.parent if path.is_file() else path
    for file in files(path):
        name = file.relative_to(base).as_posix()
        about = file.stat()
        content = _content(file.resolve(), about.st_size, about.st_mtime_ns)
        executable = "x" if about.st_mode & 0o100 else "-"
        total.update(os.fsencode(name) + f"\0{executable}{content}\n".encode())
    return total.hexdigest()[:12]


@cache
def own_digest(path: str) -> str:
    """``digest`` of a path of this project, which stays as it is while the program runs."""
    return digest(Path(path))


@cache
def tracked(root: Path) -> frozenset[str]:
    """The names of the files that git tracks below ``root``; none if git cannot say.

    Raises:
        DeclarationError: git does not end.
    """
    environment = {key: value for key, value in os.environ.items() if key not in _GIT_VARIABLES}
    try:
        done = subprocess.run(  # noqa: S603  # no words of anybody else's
            ["git", "-C", str(root), "ls-files", "-z"],  # noqa: S607  # the operator's own git
            capture_output=True,
            env=environment,
            check=True,
            timeout=_GIT_DEADLINE,
        )
    except subprocess.TimeoutExpired:
        # Another list would be another digest, and machines would be changed for nothing.
        problem = (
            f"git did not list its files within {_GIT_DEADLINE:.0f} s. See why 'git ls-files' "
            "hangs there, then run this again."
        )
        raise DeclarationError([Problem(str(root), problem)]) from None
    except (OSError, subprocess.CalledProcessError):
        return frozenset()
    return frozenset(os.fsdecode(name) for name in done.stdout.split(b"\0") if name)


@cache
def _content(file: Path, size: int, modified: int) -> str:
    """A file's SHA-256; files can be gigabytes, so each is read once while it stays the same."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _walk(path: Path) -> Iterator[Path]:
    """All files but bytecode and editors' hidden temporary files; links are followed, once each."""
    seen = set()
    for directory, below, here in os.walk(path, followlinks=True):
        real = os.path.realpath(directory)
        below[:] = [name for name in below if name != "__pycache__" and real not in seen]
        if real in seen:
            continue
        seen.add(real)
        for name in here:
            file = Path(directory, name)
            if not _temporary(name) and file.is_file():
                yield file


def _temporary(name: str) -> bool:
    """Bytecode, and what Vim and Emacs leave beside an open file."""
    hidden = name.startswith(".") and name.endswith((".swp", ".swo", ".swx"))
    return name.endswith((".pyc", "~")) or name.startswith(".#") or hidden
