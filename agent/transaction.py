"""Files that are replaced together: all of them, or none. And what a new version changes itself."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from agent.files import PART, File, discard, read, remove, write
from agent.machine import STATE, Machine


class Transaction:
    """The files of a service before a change, kept until the change has proven itself.

    What an earlier run left half-way is what this one goes back to: its files are the last that
    worked. ``target`` names the change, to tell that it was recorded before its run was cut off.
    """

    def __init__(self, machine: Machine, service: str) -> None:
        self._machine = machine
        self.directory = f"{STATE}/transactions/{quote(service, safe='')}"
        self._list = f"{self.directory}/list.json"

    def _noted(self) -> dict[str, Any]:
        text = read(self._machine.path(self._list))
        return dict(json.loads(text)) if text else {}

    @property
    def pending(self) -> bool:
        """Whether there is a change that neither proved itself nor was taken back."""
        return self._machine.path(self._list).exists()

    @property
    def target(self) -> str:
        """The change that is pending."""
        return str(self._noted().get("target", ""))

    @property
    def paths(self) -> dict[str, bool]:
        """The paths that are kept, and whether something was there."""
        return dict(self._noted().get("paths", {}))

    @property
    def data(self) -> dict[str, bool]:
        """The same of files that are not this project's own: they are kept, and never removed."""
        return dict(self._noted().get("data", {}))

    def begin(self, paths: Sequence[str], target: str, data: Sequence[str] = ()) -> None:
        """Keep what is at ``paths``, and at ``data``, now. What a pending change keeps stays.

        Raises:
            OSError: there is no room; nothing was changed.
        """
        kept, kept_data = self.paths, self.data
        if not self.pending:
            remove(self._machine.path(self.directory))
        for found, wanted in ((kept, paths), (kept_data, data)):
            for path in wanted:
                # One that is in its place again already is kept again.
                if path not in found or (found[path] and not self._copy(path).exists()):
                    found[path] = self._keep(path)
        text = json.dumps({"paths": kept, "data": kept_data, "target": target})
        write(self._machine, File(self._list, text, "0600"))

    def _keep(self, path: str) -> bool:
        source = self._machine.path(path)
        if not source.exists():
            return False
        _clone(source, self._copy(path))
        return True

    def _copy(self, path: str) -> Path:
        return self._machine.path(f"{self.directory}/files{path}")

    def put_data_back(self) -> None:
        """Give a change that was cut off the data as it was before; what is kept stays kept.

        Raises:
            OSError: there is no room.
        """
        for path, existed in self.data.items():
            if not existed:
                self._machine.path(path).unlink(missing_ok=True)
            elif self._copy(path).exists():
                _clone(self._copy(path), self._machine.path(path))

    def restore(self) -> None:
        """Put everything back. It takes no room: kept files are renamed into place."""
        for path, existed in {**self.paths, **self.data}.items():
            copy, place = self._copy(path), self._machine.path(path)
            if not existed:
                discard(self._machine, path)
            elif copy.exists():  # else it is in its place already
                place.parent.mkdir(parents=True, exist_ok=True)
                try:
                    copy.replace(place)
                except OSError:  # another file system
                    _clone(copy, place)
                place.with_name(place.name + PART).unlink(missing_ok=True)
        self.end()

    def end(self) -> None:
        """Let go of what was kept."""
        self._machine.path(self._list).unlink(missing_ok=True)
        remove(self._machine.path(self.directory))


def _clone(source: Path, target: Path) -> None:
    """A copy with owner and mode, written beside and renamed."""
    import shutil  # not at the top: a check does without, and starts sooner

    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + PART)
    part.unlink(missing_ok=True)
    try:
        shutil.copy2(source, part)
        status = source.stat()
        if os.geteuid() == 0:
            os.chown(part, status.st_uid, status.st_gid)
        part.chmod(status.st_mode & 0o7777)
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
