"""Wheels that the machines of a domain fetch once for all of them."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import stat
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, ClassVar

from agent.files import remove
from agent.machine import Machine, StepError, flock, last_lines, poll, say
from agent.pip import pip

#: Seconds that fetching may take, that one machine waits for what another one fetches, and that
#: copying may take: a machine that somebody has taken over can hold up the others no longer.
_FETCH_DEADLINE, _WAIT_DEADLINE, _COPY_DEADLINE = 1800, 600, 300
#: Bytes of the largest wheel; CUDA's libraries have 800 MB.
_LARGEST = 4 << 30
_LOCK, _STAMP = "lock", ".complete"
_METADATA = re.compile(r"[^/]+\.dist-info/WHEEL")


@dataclass(frozen=True)
class SharedWheels:
    """Install what ``directory`` has of a lock file; what it lacks is fetched into it first.

    It only saves time: nothing is done if there is no such directory, and what goes wrong is
    said and left to the installation that follows, from the package index.

    No machine has to trust another one. A file is copied out of the directory, never used in it;
    pip and uv verify the copy by the lock file's hashes; no link in the directory is followed.

    ``venv`` is the virtual environment that the packages are for, and ``create`` makes it again
    where an installation was cut short in it. ``environment`` is uv's. ``downloads``: bytes of all
    the packages, by Python and processor.
    """

    tag: ClassVar = "shared-wheels"
    directory: str
    lock: str
    venv: str
    create: Sequence[str]
    uv: str
    environment: Mapping[str, str] = field(default_factory=dict)
    downloads: Mapping[str, int] = field(default_factory=dict)

    def do(self, machine: Machine) -> None:
        """Fetch what is missing, and install what is there."""
        import hashlib  # not at the top: a check does without, and starts sooner

        from agent.progress import for_this_machine, on_disk, progress, receiving

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
                    have = on_disk(own)
                    size = max(0, for_this_machine(self.downloads) - have)
                    with progress("wheels, received", receiving(machine), size):
                        self._fetch(machine, own, have, size)
                    _give(own, shared, before)
                    _prune(shared, {wheel.name for wheel in own.iterdir()})
                    with _open(shared / stamp, os.O_WRONLY | os.O_CREAT | os.O_EXCL):
                        pass
            place = machine.path(self.venv)
            before_it = on_disk(place)
            with progress("installing wheels", lambda: on_disk(place) - before_it):
                self._install(machine, own, packages)
        except _HalfInstalledError:
            # It would count as installed: the virtual environment is made again, or the step fails.
            remove(machine.path(self.venv))
            machine.run(self.create, environment=self.environment)
            say("the wheels of this domain's machines could not be installed; the package index is")
        except Exception as error:  # whatever another machine has put there
            say(f"the wheels of this domain's machines are not used: {error}")
        finally:
            remove(own)

    def _fetch(self, machine: Machine, own: Path, have: int, size: int) -> None:
        from agent.progress import amount

        rest = f": {amount(size)}" if size else ""
        there = f", {amount(have)} are there" if have else ""
        say(f"fetching wheels for the machines of this domain{rest}{there}")
        words = ["--no-cache-dir", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
        words += ["--dest", str(own), "--requirement", self.lock]
        python = f"{self.venv}/bin/python"
        done = pip(machine, python, "download", words, text="", deadline=_FETCH_DEADLINE)
        if done.returncode:
            raise StepError("pip could not fetch them.", details=last_lines(done.stderr, 3))

    def _install(self, machine: Machine, own: Path, packages: Sequence[_Package]) -> None:
        there = {_key(wheel.name) for wheel in own.glob("*.whl")}
        found = [package for package in packages if package.key in there]
        if not found:
            return
        requirements = own / "requirements.txt"
        requirements.write_text("".join(package.text for package in found), encoding="utf-8")
        try:
            machine.run(
                [
                    *(self.uv, "pip", "install", "--quiet"),
                    *("--python", f"{self.venv}/bin/python"),
                    *("--no-deps", "--no-index", "--find-links", str(own)),
                    *("--require-hashes", "--requirement", str(requirements)),
                ],
                environment=self.environment,
            )
        except StepError as error:
            say(str(error))
            raise _HalfInstalledError from None
        say(f"{len(found)} packages come from what the machines of this domain fetched")


class _HalfInstalledError(Exception):
    """uv was stopped, by an error or by its deadline."""


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
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(f"{path} is not a regular file")
    return os.fdopen(number, "wb" if flags & (os.O_WRONLY | os.O_RDWR) else "rb")


def _take(shared: Path, own: Path, packages: Sequence[_Package]) -> None:
    """Copy the wheels that are wanted, one for each package, and are what the lock file says."""
    import zipfile

    wanted = {package.key: package.text for package in packages}
    end = time.monotonic() + _COPY_DEADLINE
    for wheel in shared.glob("*.whl"):
        copy = own / wheel.name
        if _key(wheel.name) not in wanted or time.monotonic() > end:
            continue
        try:
            with _open(wheel, os.O_RDONLY) as source:
                found = _copy(source, copy, end)
            if f"sha256:{found}" not in wanted[_key(wheel.name)] or not _is_named(copy):
                raise OSError("it is another file")
        except (OSError, ValueError, zipfile.BadZipFile):
            copy.unlink(missing_ok=True)
        else:
            del wanted[_key(wheel.name)]


def _copy(source: BinaryIO, to: Path, end: float) -> str:
    """Copy a file that may grow meanwhile; the digest of what was copied.

    Raises:
        OSError: it is too large, or takes too long.
    """
    import hashlib
    import shutil

    digest, room = hashlib.sha256(), min(_LARGEST, shutil.disk_usage(to.parent).free // 2)
    with to.open("xb") as copy:
        while block := source.read(1 << 20):
            room -= len(block)
            if room < 0 or time.monotonic() > end:
                raise OSError("it has no end")
            digest.update(block)
            copy.write(block)
    return digest.hexdigest()


def _is_named(wheel: Path) -> bool:
    """Whether a wheel is for the Python and the platforms that its file name says.

    A lock file has the hashes of all wheels of a package, and uv goes by their names.
    """
    import zipfile

    with zipfile.ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if _METADATA.fullmatch(each))
        lines = archive.read(name).decode().splitlines()
    inside = {line.partition(":")[2].strip() for line in lines if line.startswith("Tag:")}
    parts = (part.split(".") for part in wheel.stem.split("-")[-3:])
    return {"-".join(tag) for tag in itertools.product(*parts)} <= inside


def _give(own: Path, shared: Path, but: Collection[str]) -> None:
    """Copy the wheels that were fetched; each appears whole or not at all."""
    import shutil

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
    """Remove other files: the machines of a domain have one engine, and so one lock file.

    A directory is not of ours, and stays.
    """
    with os.scandir(shared) as entries:
        for entry in itertools.islice(entries, 10_000):
            if entry.name not in wanted and entry.name != _LOCK:
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)


@contextlib.contextmanager
def _only_one(shared: Path) -> Iterator[None]:
    """Be the only machine that works in the directory.

    Raises:
        StepError: another one did not finish in time.
    """
    with _open(shared / _LOCK, os.O_RDWR | os.O_CREAT) as file:
        if not flock(file.fileno()):
            say("waiting for wheels that another machine of this domain is fetching")
            if not poll(lambda: flock(file.fileno()), _WAIT_DEADLINE):
                raise StepError(
                    f"another machine is still working on them, after {_WAIT_DEADLINE} s."
                )
        yield
