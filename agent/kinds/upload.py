"""A file or a directory that is brought into the machine."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Self

from agent import seal
from agent.difference import Difference
from agent.files import chown_all, discard, remove
from agent.kinds.kind import Applied, Kind
from agent.machine import Machine, StepError


@dataclass(frozen=True)
class Upload(Kind):
    """What follows as a tar archive on stdin, put at ``destination``.

    The destination's name holds the content's digest, so what is there already is not written
    again. ``subdirectory`` is where in it the content goes (a Python package keeps its name).
    ``keep``: it stays when the step goes (a model on a volume).
    """

    kind = "upload"
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
        """Unpack beside, then rename; on a volume, one machine after the other."""
        alone = machine.volume_lock(self.destination) if self.keep else contextlib.nullcontext()
        with alone:
            return self._bring(machine)

    def _bring(self, machine: Machine) -> Applied:
        target = machine.path(self.destination)
        part = target.with_name(target.name + ".part")
        remove(part)
        if seal.is_sealed(machine, self.destination):
            while machine.stdin.read(1 << 20):
                pass
            return Applied()
        part.mkdir(parents=True)
        try:
            _unpack(machine.stdin, part / self.subdirectory)
            inner = part if self.directory else _only_file(part)
            chown_all(part, self.owner)
        except (ValueError, OSError) as error:
            remove(part)
            raise StepError(
                f"{self.destination} did not arrive whole: {error}.",
                resolution="Check the machine's disk and the connection, then run up again.",
                unchanged=True,
            ) from None
        except StepError:
            remove(part)
            raise
        # Without its seal, what is there counts as incomplete from here on.
        discard(machine, seal.seal_file(self.destination, target.is_dir()))
        remove(target)
        inner.rename(target)
        remove(part)
        seal.seal(machine, self.destination)
        return Applied()

    def check(self, machine: Machine, made: Mapping[str, Any]) -> list[Difference]:
        """Whether it is as it arrived."""
        return seal.check(machine, self.destination)

    def paths(self) -> list[str]:
        """The destination."""
        return [] if self.keep else [self.destination]


def _only_file(directory: Path) -> Path:
    """The file that an archive holds.

    Raises:
        ValueError: it holds something else.
    """
    found = list(directory.iterdir())
    if len(found) != 1 or not found[0].is_file():
        raise ValueError("the archive does not hold one file")
    return found[0]


def _unpack(stream: IO[bytes], into: Path) -> None:
    """Files and directories, readable for every user.

    Raises:
        ValueError: the archive ends too early, is damaged, or holds anything else.
        OSError: there is no room, or nothing more arrives.
    """
    import shutil
    import tarfile  # not at the top: a check does without, and starts sooner

    class Member(tarfile.TarInfo):
        """Where tarfile takes a damaged or missing header for the end, this is an error."""

        @classmethod
        def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
            try:
                return super().fromtarfile(archive)
            except tarfile.HeaderError as error:
                if type(error).__name__ == "EOFHeaderError":
                    raise  # the end, as it should be
                raise tarfile.ReadError(f"it ends too early ({error})") from None

    try:
        with tarfile.open(fileobj=stream, mode="r|", tarinfo=Member) as archive:
            for member in archive:
                parts = PurePosixPath(member.name).parts
                if PurePosixPath(member.name).is_absolute() or ".." in parts:
                    raise ValueError(f"{member.name} is not below the destination")
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
                    raise ValueError(f"{member.name} is neither a file nor a directory")
    except tarfile.TarError as error:
        raise ValueError(str(error)) from None
    while stream.read(1 << 20):
        pass
