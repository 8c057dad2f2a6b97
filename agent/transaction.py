"""Files that are replaced together: all of them, or none."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from agent.files import File, read, remove, write
from agent.machine import STATE, Machine


class Transaction:
    """The files of a service before a change, kept until the change has proven itself.

    What an earlier run left half-way is what this one goes back to: its files are the last that
    worked. ``target`` names the change, to tell that it was recorded before its run was cut off.
    """

    def __init__(self, machine: Machine, service: str) -> None:
        self._machine = machine
        self.directory = f"{STATE}/transactions/{service.replace('/', '-')}"
        self._list = f"{self.directory}/list.json"

    @property
    def pending(self) -> bool:
        """Whether there is a change that neither proved itself nor was taken back."""
        return self._machine.path(self._list).exists()

    @property
    def target(self) -> str:
        """The change that is pending."""
        text = read(self._machine.path(self._list))
        return str(json.loads(text)["target"]) if text else ""

    def _kept(self) -> dict[str, bool]:
        """The paths that are kept, and whether something was there."""
        text = read(self._machine.path(self._list))
        return dict(json.loads(text)["paths"]) if text else {}

    def begin(self, paths: Sequence[str], target: str) -> None:
        """Keep what is at ``paths`` now. What a pending change keeps stays as it is.

        Raises:
            OSError: there is no room; nothing was changed.
        """
        kept = self._kept()
        if not kept:
            remove(self._machine.path(self.directory))
        for path in paths:
            # One that is in its place again already is kept anew.
            if path not in kept or (kept[path] and not self._copy(path).exists()):
                kept[path] = self._keep(path)
        text = json.dumps({"paths": kept, "target": target})
        write(self._machine, File(self._list, text, "0600"))

    def _keep(self, path: str) -> bool:
        source, copy = self._machine.path(path), self._copy(path)
        if not source.exists():
            return False
        copy.parent.mkdir(parents=True, exist_ok=True)
        part = copy.with_name(copy.name + ".part")
        shutil.copy2(source, part)
        if os.geteuid() == 0:
            status = source.stat()
            os.chown(part, status.st_uid, status.st_gid)
        part.replace(copy)
        return True

    def _copy(self, path: str) -> Path:
        return self._machine.path(f"{self.directory}/files{path}")

    def restore(self) -> None:
        """Put everything back. It takes no room: kept files are renamed into place."""
        for path, existed in self._kept().items():
            copy, place = self._copy(path), self._machine.path(path)
            if not existed:
                place.unlink(missing_ok=True)
            elif copy.exists():  # else it is in its place already
                try:
                    copy.replace(place)
                except OSError:  # another file system
                    shutil.move(copy, place)
        self.end()

    def end(self) -> None:
        """Let go of what was kept."""
        self._machine.path(self._list).unlink(missing_ok=True)
        remove(self._machine.path(self.directory))
