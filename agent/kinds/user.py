"""A service's own user, with its directories."""

from __future__ import annotations

import pwd
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.difference import Difference, compare, missing
from agent.files import check_attributes, chown
from agent.kinds.kind import Applied, Kind
from agent.machine import Machine, StepError


@dataclass(frozen=True)
class Directory:
    """A directory; an empty ``owner`` is the user's own."""

    path: str
    mode: str = "0755"
    owner: str = ""


@dataclass(frozen=True)
class User(Kind):
    """A system user. The uid is fixed, since files on a volume outlive the machine."""

    kind = "user"
    name: str
    uid: int
    home: str
    directories: Sequence[Directory] = field(default_factory=list)

    @property
    def locks(self) -> list[str]:
        """The list of users."""
        return ["users"]

    def _all(self) -> list[Directory]:
        return [Directory(self.home, "0750"), *self.directories]

    def _owner(self, directory: Directory) -> str:
        return directory.owner or f"{self.name}:{self.name}"

    def apply(self, machine: Machine, step: str) -> Applied:
        """Make the user and its directories."""
        uid = self._uid()
        if uid not in (None, self.uid):
            raise StepError(
                f"The machine has a user {self.name} with the uid {uid}, not {self.uid}.",
                resolution="Give it the other uid (usermod -u), or use another image (stt:image).",
                unchanged=True,
            )
        if uid is None:
            shell = "/usr/sbin/nologin"
            words = ["--system", "--user-group", "--uid", str(self.uid), "--shell", shell]
            machine.run(["useradd", *words, "--home-dir", self.home, self.name], deadline=60)
        for directory in self._all():
            place = machine.path(directory.path)
            place.mkdir(parents=True, exist_ok=True)
            place.chmod(int(directory.mode, 8))
            chown(place, self._owner(directory))
        return Applied()

    def _uid(self) -> int | None:
        try:
            return pwd.getpwnam(self.name).pw_uid
        except KeyError:
            return None

    def check(self, machine: Machine, made: Mapping[str, Any]) -> list[Difference]:
        """A user that was removed, directories that were changed."""
        uid = self._uid()
        found = [missing(f"user {self.name}")] if uid is None else []
        found += compare(f"user {self.name}", self.uid, uid) if uid is not None else []
        for directory in self._all():
            if not machine.path(directory.path).is_dir():
                found.append(missing(directory.path))
            else:
                owner = self._owner(directory)
                found += check_attributes(machine, directory.path, directory.mode, owner)
        return found
