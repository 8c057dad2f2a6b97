"""What is fetched, by size and SHA-256, as ``artifacts.lock`` has it; ``make lock`` writes it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from declaration.problems import DeclarationError, Problem
from declaration.source_files import ROOT

FILE = ROOT / "artifacts.lock"


@dataclass(frozen=True)
class LockedFile:
    """A file that is fetched: bytes (0: not known) and SHA-256 (empty: not known)."""

    size: int = 0
    sha256: str = ""


@dataclass(frozen=True)
class Artifact:
    """Something that is fetched and that no pip lock names.

    ``name`` is a package URL (purl) without a version. ``source`` is where it comes from: a URL, or
    the mechanism that finds it. ``verified`` says what an install compares, ``sums`` where the sums
    of ``files`` are from.

    For `make lock`, and not in the file: ``patterns`` names the files that are fetched, ``listing``
    is the URL of the publisher's own list of sums. ``uv_project``: its packages come from its own
    uv.lock, with this Python.
    """

    name: str
    version: str
    licence: str
    source: str
    verified: str
    sums: str = ""
    files: Mapping[str, LockedFile] = field(default_factory=dict)
    patterns: Sequence[str] = ()
    listing: str = ""
    uv_project: str = ""

    @property
    def purl(self) -> str:
        """The package URL, with the version."""
        return self.name + (f"@{self.version}" if self.version else "")


@dataclass(frozen=True)
class Lock:
    """The whole file. ``packages``: bytes that a pip lock downloads, by Python and processor.

    What a program's own uv.lock downloads is there too, by the program's package URL.
    ``licences`` are those of the packages of pip locks, by their package URLs; empty if a
    package does not name its own.
    """

    artifacts: Mapping[str, Artifact]
    packages: Mapping[str, Mapping[str, int]]
    licences: Mapping[str, str] = field(default_factory=dict)


def read_lock(file: Path = FILE) -> Lock:
    """The lock file.

    Raises:
        DeclarationError: it is not one.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        artifacts = [
            Artifact(**{**each, "files": _files(each.get("files", {}))})
            for each in found["artifacts"]
        ]
        return Lock({each.name: each for each in artifacts}, found["packages"], found["licences"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        problem = f"it cannot be read ({error!r}). Bring it back: git checkout -- {file.name}"
        raise DeclarationError([Problem(str(file), problem)]) from None


def _files(said: Mapping[str, Mapping[str, object]]) -> dict[str, LockedFile]:
    return {name: LockedFile(**each) for name, each in said.items()}  # type: ignore[arg-type]  # JSON


@cache
def locked() -> Lock:
    """The lock file of this repository, read once.

    Raises:
        DeclarationError: it cannot be read.
    """
    return read_lock()


def known_sums(name: str, version: str = "") -> dict[str, str]:
    """The SHA-256 of an artifact's files, by their names; empty if none is known.

    Without ``version``: of the version that the lock file has, if it has the artifact at all.

    Raises:
        DeclarationError: the lock file does not have this version.
    """
    found = locked().artifacts.get(name)
    if version and (found is None or found.version != version):
        has = f"has {found.version} of {name}" if found else f"does not have {name}"
        problem = f"it {has}, and {version} is wanted. Run: make lock"
        raise DeclarationError([Problem(FILE.name, problem)])
    files = found.files.items() if found else ()
    return {file: each.sha256 for file, each in files if each.sha256}


def locked_version(name: str) -> str:
    """The version of an artifact: of a model its revision; empty if none is known."""
    found = locked().artifacts.get(name)
    return found.version if found else ""


def hub_name(repository: str) -> str:
    """The name of a repository of the model hub."""
    return f"pkg:huggingface/{repository}"


def download_sizes(lock: Path | Artifact) -> dict[str, int]:
    """Bytes that a pip lock downloads, by Python and processor: ``{"3.12 x86_64": …}``.

    For a program with a uv.lock of its own: by processor only, because it has one Python.
    """
    name = lock.purl if isinstance(lock, Artifact) else lock.as_posix()
    return dict(locked().packages.get(name, {}))
