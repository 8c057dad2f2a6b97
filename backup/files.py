"""The operator's files of a stack: which there are, and back to where they were."""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from backup.archive import FILES, FileEntry, digest
from backup.say import say
from declaration import source_files
from declaration.field_types import paths_in
from declaration.settings import Settings
from operations.host import OperationError
from stack.declare import Declaration


def stack_file(stack: str) -> str:
    """A stack's file, relative to the checkout."""
    return f"stacks/Pulumi.{stack}.yaml"


def named(declaration: Declaration, stack: str, whole: bool) -> tuple[list[str], list[str]]:
    """The paths that belong to a stack, and those that are left out because they are models.

    ``whole``: directories with models, and what stands in for a download, belong to it too.
    """
    settings = declaration.settings
    paths = [stack_file(stack), *paths_in(settings)]
    large = [settings.model] if Path(settings.model).is_dir() else []
    large += [path for path in _sources(settings) if Path(path).exists()]
    return (paths + large, []) if whole else (paths, [each for each in large if not _shipped(each)])


def _shipped(path: str) -> bool:
    """Whether this repository has what is at a path: every clone has it."""
    root = source_files.ROOT
    places = [file.resolve() for file in source_files.files(Path(path))]
    return all(
        place.is_relative_to(root)
        and place.relative_to(root).as_posix() in source_files.tracked(root)
        for place in places
    )


def _sources(settings: Settings) -> list[str]:
    return [str(value) for _, value in settings.sources if value]


def collect(root: Path, paths: list[str]) -> tuple[list[FileEntry], dict[str, Path]]:
    """The files below ``paths``: as the manifest lists them, and by their names in the archive.

    Raises:
        DeclarationError: there is nothing at a path.
    """
    entries: dict[str, FileEntry] = {}
    contents: dict[str, Path] = {}
    for path in paths:
        for file in source_files.files(root / path):
            place = Path(os.path.abspath(file))
            within = place.is_relative_to(root)
            shown = str(place.relative_to(root)) if within else str(place)
            name = f"{FILES}/{'here' if within else 'elsewhere'}/{shown.lstrip('/')}"
            entries[shown] = FileEntry(shown, file.stat().st_mode & 0o777, name)
            contents[name] = file
    return list(entries.values()), contents


@dataclass(frozen=True)
class Placed:
    """A file to be written: from where, to where, and with which mode."""

    source: Path
    target: Path
    mode: int

    @property
    def same(self) -> bool:
        """Whether it is there already."""
        return self.target.is_file() and digest(self.target) == digest(self.source)


def target_of(root: Path, entry: FileEntry, former: str, stack: str) -> Path:
    """Where a file of an archive goes; the stack's own file goes to the stack's name here.

    Raises:
        OperationError: its path leads out of the checkout by ``..``.
    """
    path = stack_file(stack) if entry.path == stack_file(former) else entry.path
    if ".." in Path(path).parts:
        raise OperationError(f"the archive has the path {path}, which no backup writes.")
    return root / path


def conflicts(root: Path, placed: list[Placed]) -> list[Path]:
    """The targets that differ, and that nobody else has a copy of: git has not what is there."""
    differ = [each.target for each in placed if each.target.exists() and not each.same]
    return [target for target in differ if not _is_as_committed(root, target)]


def _is_as_committed(root: Path, file: Path) -> bool:
    """Whether git tracks a file, and it is as in the last commit."""
    if not file.is_relative_to(root):
        return False
    name = str(file.relative_to(root))
    words = ["git", "-C", str(root), "diff", "--quiet", "HEAD", "--", name]
    known = ["git", "-C", str(root), "ls-files", "--error-unmatch", "--", name]
    try:
        done = [
            subprocess.run(each, capture_output=True, timeout=60, check=False)  # noqa: S603
            for each in (known, words)
        ]
    except OSError:
        return False
    except subprocess.TimeoutExpired:
        say(f"git did not say within 60 s whether {name} was changed: it is taken for changed")
        return False
    return not any(each.returncode for each in done)


def place(placed: list[Placed]) -> list[Path]:
    """Write the files that are not there yet; which these were.

    Raises:
        OperationError: one cannot be written.
    """
    written: list[Path] = []
    for each in placed:
        if each.same:
            continue
        try:
            each.target.parent.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=each.target.parent, prefix=".restore-")
            with os.fdopen(descriptor, "wb") as new, each.source.open("rb") as content:
                while chunk := content.read(1 << 20):
                    new.write(chunk)
            Path(name).chmod(each.mode)
            Path(name).rename(each.target)
        except OSError as error:
            raise OperationError(f"{each.target} cannot be written: {error.strerror}.") from None
        written.append(each.target)
    return written
