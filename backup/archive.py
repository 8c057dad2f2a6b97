"""The archive: a tar file with a manifest first, then what that lists, each with its SHA-256."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from operations.host import OperationError

#: The version of the format; another one is refused.
FORMAT = 1
MANIFEST = "manifest.json"
STATE, SEAL, FILES, VOLUMES = "state.json", "passphrase.sealed", "files", "volumes"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Member:
    """Something in the archive: its name there, its size in bytes and its SHA-256."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class FileEntry:
    """A file of the operator's; ``path`` is relative to the checkout, or absolute outside of it."""

    path: str
    mode: int
    member: str


@dataclass(frozen=True)
class VolumeEntry:
    """A storage volume; ``domain`` is the Incus project that it was in."""

    domain: str
    name: str
    member: str


@dataclass(frozen=True)
class Manifest:
    """What an archive says of itself.

    ``id`` is the stack's own. ``time`` is that of the volumes' snapshots. ``models`` has the names
    of the models of each machine (``DOMAIN/NAME``), by the program that serves them. ``left_out``
    are paths that the stack's file names and the archive does not have.
    """

    stack: str
    id: str
    time: str
    commit: str
    versions: dict[str, str]
    domains: dict[str, Any]
    models: dict[str, dict[str, list[str]]]
    files: list[FileEntry]
    volumes: list[VolumeEntry]
    left_out: list[str]
    members: list[Member] = field(default_factory=list)
    format: int = FORMAT


def digest(file: Path) -> str:
    """A file's SHA-256."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write(target: Path, manifest: Manifest, contents: dict[str, Path]) -> None:
    """Write an archive that only its owner can read; whole, or not at all.

    ``contents`` are files by their names in the archive. ``target`` has to be in a directory that
    can be written; what was there is replaced.
    """
    members = [Member(name, file.stat().st_size, digest(file)) for name, file in contents.items()]
    text = json.dumps(asdict(manifest) | {"members": [asdict(each) for each in members]}, indent=2)
    part = target.with_name(f".{target.name}.part")
    part.unlink(missing_ok=True)
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
                _add(tar, MANIFEST, io.BytesIO(text.encode()), len(text.encode()))
                for each in members:
                    with contents[each.name].open("rb") as content:
                        _add(tar, each.name, content, each.size)
            stream.flush()
            os.fsync(stream.fileno())
        part.rename(target)
    finally:
        part.unlink(missing_ok=True)


def _add(tar: tarfile.TarFile, name: str, content: BinaryIO, size: int) -> None:
    about = tarfile.TarInfo(name)
    about.size, about.mode = size, 0o600
    tar.addfile(about, content)


class Archive:
    """An archive that is read."""

    def __init__(self, tar: tarfile.TarFile, manifest: Manifest, shown: str) -> None:
        self._tar, self._shown = tar, shown
        self.manifest = manifest
        self._members = {each.name: each for each in manifest.members}

    def extract(self, name: str, target: Path) -> None:
        """Write a member to a new file that only its owner can read.

        Raises:
            OperationError: it is not there, or not as it was written.
        """
        known = self._members.get(name)
        try:
            stream = self._tar.extractfile(name) if known else None
        except KeyError:
            stream = None
        except (OSError, tarfile.TarError) as error:
            raise _damaged(self._shown, str(error)) from None
        if known is None or stream is None:
            raise OperationError(
                f"{self._shown} is incomplete: {name} is missing. Use a complete copy."
            )
        total = hashlib.sha256()
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file, stream:
            while chunk := _read(stream, self._shown):
                total.update(chunk)
                file.write(chunk)
        if total.hexdigest() != known.sha256:
            raise _damaged(self._shown, f"{name} is not as it was written")


def _read(stream: Any, shown: str) -> bytes:
    try:
        return bytes(stream.read(_CHUNK))
    except (OSError, tarfile.TarError) as error:
        raise _damaged(shown, str(error)) from None


def _damaged(shown: str, why: str) -> OperationError:
    return OperationError(f"{shown} is damaged: {why}. Use another copy.")


@contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """The archive at ``path``.

    Raises:
        OperationError: it cannot be read, or is none of this version's.
    """
    shown = str(path)
    try:
        tar = tarfile.open(path, "r:")  # noqa: SIM115  # closed below
    except (OSError, tarfile.TarError) as error:
        said = getattr(error, "strerror", None) or "it is not an archive of `make backup`"
        raise OperationError(f"FILE: {shown} cannot be read: {said}. Name another one.") from None
    with tar:
        yield Archive(tar, _manifest(tar, shown), shown)


def _manifest(tar: tarfile.TarFile, shown: str) -> Manifest:
    try:
        first = tar.next()  # without a look at the rest, which may be cut off
        stream = tar.extractfile(first) if first and first.name == MANIFEST else None
        found = json.loads(stream.read()) if stream else {}
        version = found.get("format")
        if version is None:
            raise KeyError
        if version != FORMAT:
            raise OperationError(
                f"FILE: {shown} has the format {version}, and this version reads {FORMAT}. Use the "
                f"version that wrote it: commit {found.get('commit', 'unknown')}."
            )
        found["files"] = [FileEntry(**each) for each in found["files"]]
        found["volumes"] = [VolumeEntry(**each) for each in found["volumes"]]
        found["members"] = [Member(**each) for each in found["members"]]
        return Manifest(**found)
    except (KeyError, TypeError, ValueError, AttributeError, tarfile.TarError):
        raise OperationError(
            f"FILE: {shown} is not an archive of `make backup`. Name another one."
        ) from None
