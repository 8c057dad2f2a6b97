"""Wheels that the machines of a domain fetch once for all of them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, ClassVar

from agent.files import remove
from agent.machine import Machine, StepError, flock, last_lines, poll, say

#: Seconds that fetching may take, and that one machine waits for what another one fetches.
_DEADLINE = 1800
_LOCK, _STAMP = "lock", ".complete"


@dataclass(frozen=True)
class SharedWheels:
    """Install what ``directory`` has of a lock file; what it lacks is fetched into it first.

    It only saves time: nothing is done where there is no such directory, and what goes wrong is
    said and left to the installation that follows, from the package index.

    No machine has to trust another one. A file is copied out of the directory, never used in it;
    pip and uv verify the copy by the lock file's hashes; no link in the directory is followed.

    ``venv`` is the virtual environment that the packages are for, and ``create`` makes it anew
    where an installation was cut short in it. ``environment`` is uv's.
    """

    tag: ClassVar = "shared-wheels"
    directory: str
    lock: str
    venv: str
    create: Sequence[str]
    uv: str
    pip: str
    environment: Mapping[str, str] = field(default_factory=dict)

    def do(self, machine: Machine) -> None:
        """Fetch what is missing, and install what is there."""
        shared, own = machine.path(self.directory), machine.path(f"{self.venv}/.wheels")
        if not shared.is_dir():
            return
        try:
            own.mkdir()
            lock = machine.path(self.lock).read_text(encoding="utf-8")
            packages = _packages(lock)
            stamp = hashlib.sha256(lock.encode()).hexdigest() + _STAMP
            with _only_one(shared):
                _take(shared, own, packages)
                if not os.path.lexists(shared / stamp):
                    before = {wheel.name for wheel in own.iterdir()}
                    self._fetch(machine, own)
                    _give(own, shared, before)
                    _prune(shared, {wheel.name for wheel in own.iterdir()})
                    with _open(shared / stamp, os.O_WRONLY | os.O_CREAT | os.O_EXCL):
                        pass
            self._install(machine, own, packages)
        except (StepError, OSError) as error:
            say(f"what this domain's machines fetched is not used: {error}")
        finally:
            remove(own)

    def _fetch(self, machine: Machine, own: Path) -> None:
        say("fetching wheels for the machines of this domain")
        done = machine.run(
            [
                *(self.pip, "--python", f"{self.venv}/bin/python", "download", "--quiet"),
                *("--no-cache-dir", "--disable-pip-version-check", "--no-deps", "--prefer-binary"),
                *("--require-hashes", "--dest", str(own), "--requirement", self.lock),
            ],
            check=False,
            deadline=_DEADLINE,
        )
        if done.returncode:
            raise StepError("pip could not fetch it.", details=last_lines(done.stderr, 3))

    def _install(self, machine: Machine, own: Path, packages: Sequence[_Package]) -> None:
        there = {_key(wheel.name) for wheel in own.glob("*.whl")}
        found = [package for package in packages if package.key in there]
        if not found:
            return
        requirements = own / "requirements.txt"
        requirements.write_text("".join(package.text for package in found), encoding="utf-8")
        done = machine.run(
            [
                *(self.uv, "pip", "install", "--quiet", "--python", f"{self.venv}/bin/python"),
                *("--no-deps", "--no-index", "--find-links", str(own)),
                *("--require-hashes", "--requirement", str(requirements)),
            ],
            environment=self.environment,
            check=False,
        )
        if done.returncode:
            # What is half installed would count as installed.
            remove(machine.path(self.venv))
            machine.run(self.create, environment=self.environment)
            raise StepError("uv could not install it.", details=last_lines(done.stderr, 6))
        say(f"{len(found)} packages come from what the machines of this domain fetched")


@dataclass(frozen=True)
class _Package:
    """A pinned package of a lock file: its name and version, and the lines that pin it."""

    key: tuple[str, str]
    text: str


def _normal(name: str, version: str) -> tuple[str, str]:
    """The name and version as every spelling of them has it."""
    return re.sub(r"[-_.]+", "-", name).lower(), version.replace("%2B", "+")


def _key(file: str) -> tuple[str, str]:
    """The name and version of a wheel by its file name."""
    name, version, *_ = (*file.split("-"), "")
    return _normal(name, version)


def _packages(lock: str) -> list[_Package]:
    """What a lock file pins: ``name==version``, with its hashes in the indented lines below."""
    blocks = re.findall(r"^\w.*\n(?:[ \t].*\n)*", f"{lock}\n", re.MULTILINE)
    pinned = ((re.match(r"([\w.-]+)==([^\s;\\]+)", block), block) for block in blocks)
    return [_Package(_normal(found[1], found[2]), block) for found, block in pinned if found]


def _open(path: Path, flags: int) -> BinaryIO:
    """A file of a directory that others write to: no link is followed, no pipe waited for.

    Raises:
        OSError: it is something else than a regular file.
    """
    number = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    file: BinaryIO = os.fdopen(number, "wb" if flags & (os.O_WRONLY | os.O_RDWR) else "rb")
    if not stat.S_ISREG(os.fstat(number).st_mode):
        file.close()
        raise OSError(f"{path} is no regular file")
    return file


def _take(shared: Path, own: Path, packages: Sequence[_Package]) -> None:
    """Copy the wheels that are wanted, and are what the lock file says."""
    wanted = {package.key: package.text for package in packages}
    for wheel in shared.glob("*.whl"):
        text = wanted.get(_key(wheel.name))
        if text is None:
            continue
        with contextlib.suppress(OSError), _open(wheel, os.O_RDONLY) as source:
            with (own / wheel.name).open("xb") as copy:
                shutil.copyfileobj(source, copy, 1 << 20)
            with (own / wheel.name).open("rb") as copy:
                found = hashlib.file_digest(copy, "sha256").hexdigest()
            if f"sha256:{found}" not in text:
                (own / wheel.name).unlink()


def _give(own: Path, shared: Path, but: Collection[str]) -> None:
    """Copy the wheels that were fetched; each appears whole or not at all."""
    part = shared / "part"
    for wheel in own.glob("*.whl"):
        if wheel.name in but:
            continue
        part.unlink(missing_ok=True)
        new = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with wheel.open("rb") as source, _open(part, new) as copy:
            shutil.copyfileobj(source, copy, 1 << 20)
        part.rename(shared / wheel.name)


def _prune(shared: Path, wanted: Collection[str]) -> None:
    """Remove everything else: the machines of a domain have one engine, and so one lock file."""
    for name in os.listdir(shared):
        if name not in wanted and name != _LOCK:
            remove(shared / name)


@contextlib.contextmanager
def _only_one(shared: Path) -> Iterator[None]:
    """Be the only machine that works in the directory.

    Raises:
        StepError: another one has not ended in time.
    """
    with _open(shared / _LOCK, os.O_RDWR | os.O_CREAT) as file:
        if not flock(file.fileno()):
            say("waiting for wheels that another machine of this domain fetches")
            if not poll(lambda: flock(file.fileno()), _DEADLINE):
                raise StepError(f"another machine still fetches it, after {_DEADLINE} s.")
        yield
