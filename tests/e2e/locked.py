"""Made-up files that have real names: the copy of the project gets a lock that knows them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from declaration.artifacts import LockedFile, read_lock
from lock import file
from tests.e2e.project import Project


def lock_files(project: Project, name: str, files: Iterable[Path], version: str = "") -> None:
    """Have ``artifacts.lock`` of ``project`` name ``files`` as those of an artifact."""
    place = project.root / "artifacts.lock"
    lock = read_lock(place)
    # The hub of the tests has a README.md of its own.
    named = [each for each in files if each.is_file() and each.name != "README.md"]
    found = {each.name: each.read_bytes() for each in named}
    sums = {
        each: LockedFile(len(data), hashlib.sha256(data).hexdigest())
        for each, data in found.items()
    }
    former = lock.artifacts[name]
    artifact = replace(former, files=sums, version=version or former.version)
    place.write_text(file.text(replace(lock, artifacts={**lock.artifacts, name: artifact})))
