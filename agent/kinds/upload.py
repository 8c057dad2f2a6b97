"""A file or a directory that is brought into the machine."""

from __future__ import annotations

import shutil
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from agent import seal
from agent.difference import Difference
from agent.files import chown_all, remove
from agent.kinds.kind import Applied, Kind
from agent.machine import Machine, StepError


@dataclass(frozen=True)
class Upload(Kind):
    """What follows as a tar archive on stdin, put at ``destination``.

    The destination's name holds the content's digest, so what is there already is not written
    again. ``subdirectory`` is where in it the content goes (a Python package keeps its name).
    ``keep``: it stays when the step goes (a model on a volume).
    """

    kind: ClassVar = "upload"
    destination: str
    directory: bool = True
    subdirectory: str = ""
    owner: str = "root:root"
    keep: bool = False

    @property
    def locks(self) -> list[str]:
        """The destination."""
        return [self.destination]

    @property
    def payload(self) -> bool:
        """The archive."""
        return True

    def apply(self, machine: Machine, step: str) -> Applied:
        """Unpack beside, then rename."""
        if seal.is_sealed(machine, self.destination):
            while sys.stdin.buffer.read(1 << 20):
                pass
            return Applied()
        target = machine.path(self.destination)
        part = target.with_name(target.name + ".part")
        remove(part)
        part.mkdir(parents=True)
        try:
            with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as archive:
                _unpack(archive, part / self.subdirectory)
        except (tarfile.TarError, OSError) as error:
            remove(part)
            raise StepError(
                f"{self.destination} did not arrive whole: {error}.",
                resolution="Check the machine's disk and the connection, then run up again.",
                unchanged=True,
            ) from None
        remove(target)
        chown_all(part, self.owner)
        if self.directory:
            part.rename(target)
        else:
            next(part.iterdir()).rename(target)
            part.rmdir()
        seal.seal(machine, self.destination)
        return Applied()

    def check(self, machine: Machine, made: Mapping[str, Any]) -> list[Difference]:
        """Whether it is as it arrived."""
        return seal.check(machine, self.destination)

    def paths(self) -> list[str]:
        """The destination."""
        return [] if self.keep else [self.destination]


def _unpack(archive: tarfile.TarFile, into: Path) -> None:
    """Files and directories, readable for every user; anything else is an error."""
    for member in archive:
        parts = PurePosixPath(member.name).parts
        if PurePosixPath(member.name).is_absolute() or ".." in parts:
            raise tarfile.TarError(f"{member.name} is not below the destination")
        place = into.joinpath(*parts)
        if member.isdir():
            place.mkdir(parents=True, exist_ok=True)
            place.chmod(0o755)
        elif source := archive.extractfile(member):
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
            place.chmod(0o755 if member.mode & 0o100 else 0o644)
        else:
            raise tarfile.TarError(f"{member.name} is neither a file nor a directory")
