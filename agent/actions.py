"""What makes a program or a model: downloads, archives, sources, commands. Each is data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from agent.files import chown_all, remove
from agent.machine import Machine, StepError, last_lines, say
from agent.pip import PipInstall
from agent.specs import SpecError, decode, encode
from agent.wheels import SharedWheels

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Run:
    """A program with its arguments. ``failure``: what the operator reads where it fails."""

    tag: ClassVar = "run"
    argv: Sequence[str]
    failure: str = ""
    directory: str = "/"
    user: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    #: How long it may take; s.
    deadline: int = 3600

    def do(self, machine: Machine) -> str:
        """Run it; what it said on stdout."""
        done = machine.run(
            self.argv,
            user=self.user,
            environment=self.environment,
            directory=self.directory,
            check=False,
            deadline=self.deadline,
        )
        if done.returncode:
            raise StepError(
                self.failure or f"{' '.join(self.argv[:3])} failed.",
                details=last_lines(done.stderr or done.stdout),
            )
        return done.stdout


#: Downloads from this size on say how large they are; bytes.
_LARGE = 50_000_000


@dataclass(frozen=True)
class Download:
    """A file from a URL; ``{architecture}`` in it is ``amd64`` or ``arm64``.

    A download that was cut off continues where it stopped. ``sums`` has the SHA-256 that a file of
    this name must have. ``checksums`` is the URL of a list of such sums, as ``sha256sum`` writes
    it, which is asked where ``sums`` does not have the name.
    """

    tag: ClassVar = "download"
    url: str
    to: str
    checksums: str = ""
    failure: str = ""
    sums: Mapping[str, str] = field(default_factory=dict)

    def do(self, machine: Machine) -> None:
        """Fetch it."""
        import platform  # not at the top: a check does without, and starts sooner

        from agent.progress import amount, on_disk, progress

        url = self.url.format(architecture=_ARCHITECTURES.get(platform.machine(), "amd64"))
        target = machine.path(self.to)
        target.parent.mkdir(parents=True, exist_ok=True)
        words = ["curl", "--fail", "--silent", "--show-error", "--location", "--retry", "3"]
        size = self._size(machine, [*words, url])
        say(f"downloading {url}" + (f": {amount(size)}" if size >= _LARGE else ""))
        fetch = [*words, "--continue-at", "-", "--output", str(target), url]
        with progress(url.rsplit("/", 1)[1], lambda: on_disk(target), size):
            done = machine.run(fetch, check=False, deadline=7200)
            if done.returncode == 33:  # the server sends whole files only
                target.unlink(missing_ok=True)
                done = machine.run(fetch, check=False, deadline=7200)
        # A file that is whole already cannot be continued (HTTP 416).
        if done.returncode and not (done.returncode == 22 and "416" in done.stderr):
            raise StepError(
                self.failure or f"{url} could not be downloaded.",
                details=last_lines(done.stderr, 3),
            )
        name = url.rsplit("/", 1)[1]
        if name in self.sums:
            _compare(target, name, self.sums[name])
        elif self.checksums:
            self._verify(machine, target, name, [*words, self.checksums])

    @staticmethod
    def _size(machine: Machine, fetch: Sequence[str]) -> int:
        """How many bytes there are to download; 0 if the server does not tell."""
        asked = machine.run([*fetch, "--head"], check=False, deadline=60).stdout.lower()
        sizes = [line.partition(":")[2] for line in asked.splitlines() if "content-length:" in line]
        return int(sizes[-1]) if sizes and sizes[-1].strip().isdigit() else 0

    def _verify(self, machine: Machine, file: Path, name: str, fetch: Sequence[str]) -> None:
        said = machine.run(fetch, check=False, deadline=120)
        rows = (line.split() for line in said.stdout.splitlines())
        sums = {row[1].removeprefix("./").removeprefix("*"): row[0] for row in rows if len(row) > 1}
        if sums.get(name) != _sum(file):
            file.unlink()
            raise StepError(
                f"{name} does not have the published checksum; it was removed.",
                resolution="Run up again.",
            )


def _sum(file: Path) -> str:
    import hashlib  # not at the top: a check does without, and starts sooner

    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _compare(file: Path, name: str, wanted: str) -> None:
    """Refuse a file with another SHA-256 than ``wanted``.

    Raises:
        StepError: it has another one. It was removed, and what it is a link to.
    """
    found = _sum(file)
    if found != wanted:
        file.resolve().unlink()
        file.unlink(missing_ok=True)
        raise StepError(
            f"{name} has the SHA-256 {found}, and artifacts.lock has {wanted}: it was removed.",
            resolution="Use another source, and run up again. If its publisher has replaced it "
            "and you trust that, put the new sum into artifacts.lock (make lock).",
        )


@dataclass(frozen=True)
class Verify:
    """The SHA-256 of files that a program has fetched, by their names in ``directory``.

    ``directory`` may be a pattern (``/x/*``), where the program chooses a part of its name. A file
    that is not there is not missed.
    """

    tag: ClassVar = "verify"
    directory: str
    sums: Mapping[str, str]

    def do(self, machine: Machine) -> None:
        """Compare them."""
        import glob

        for directory in sorted(glob.glob(str(machine.path(self.directory)))):
            for name, wanted in self.sums.items():
                if (file := Path(directory, name)).is_file():
                    _compare(file, name, wanted)


@dataclass(frozen=True)
class Unpack:
    """A tar archive, whatever its compression, or a ZIP file, into a directory.

    ``single``: the archive holds one directory, whose content is wanted. ``cleanup``: the archive
    goes afterwards.
    """

    tag: ClassVar = "unpack"
    archive: str
    to: str
    single: bool = False
    cleanup: bool = False
    failure: str = ""

    def do(self, machine: Machine) -> None:
        """Unpack it."""
        import zipfile

        archive, target = machine.path(self.archive), machine.path(self.to)
        into = target.with_name(target.name + ".unpacked") if self.single else target
        if self.single:
            remove(into)
        into.mkdir(parents=True, exist_ok=True)
        try:
            if zipfile.is_zipfile(archive):
                with zipfile.ZipFile(archive) as file:
                    for member in file.infolist():
                        place, mode = file.extract(member, into), member.external_attr >> 16
                        if mode & 0o777:  # extract() forgets which files are programs
                            Path(place).chmod(mode & 0o777)
            else:
                tar = ["tar", "--no-same-owner", "-C", str(into), "-xf", str(archive)]
                machine.run(tar)
        except (StepError, zipfile.BadZipFile, OSError) as error:
            if self.cleanup:
                archive.unlink(missing_ok=True)
            raise StepError(
                self.failure
                or f"{self.archive} cannot be unpacked: it is damaged, or the disk is full.",
                details=str(error),
            ) from None
        if self.single:
            remove(target)
            inner = list(into.iterdir())
            if len(inner) != 1:
                raise StepError(self.failure or f"{self.archive} does not hold one directory.")
            inner[0].rename(target)
            remove(into)
        if self.cleanup:
            archive.unlink(missing_ok=True)


@dataclass(frozen=True)
class Git:
    """A commit of a repository, by the name of its tag or by its hash."""

    tag: ClassVar = "git"
    repository: str
    ref: str
    commit: str
    to: str
    failure: str = ""

    def do(self, machine: Machine) -> None:
        """Fetch it, and see that it is the commit that is wanted."""
        to = str(machine.path(self.to))
        machine.run(["git", "init", "--quiet", to], deadline=60)
        git = ["git", "-C", to]
        depth = ["--depth", "1"] if "://" in self.repository else []
        say(f"fetching {self.ref} from {self.repository}")
        done = machine.run(
            [*git, "fetch", "--quiet", *depth, self.repository, self.ref], check=False
        )
        if done.returncode:
            raise StepError(
                self.failure or f"{self.repository} could not be fetched.",
                details=last_lines(done.stderr, 4),
            )
        found = machine.run([*git, "rev-parse", "FETCH_HEAD^{commit}"]).stdout.strip()
        if found != self.commit:
            raise StepError(
                f"{self.repository} has the commit {found} as {self.ref}, expected {self.commit}.",
                resolution="Use another source.",
            )
        machine.run([*git, "checkout", "--quiet", "--detach", self.commit])


@dataclass(frozen=True)
class Link:
    """Symbolic links in the directory ``to``, one for each file that ``pattern`` matches."""

    tag: ClassVar = "link"
    pattern: str
    to: str

    def do(self, machine: Machine) -> None:
        """Make the links."""
        import glob

        target = machine.path(self.to)
        target.mkdir(parents=True, exist_ok=True)
        for name in sorted(glob.glob(str(machine.path(self.pattern)))):
            link = target / Path(name).name
            link.unlink(missing_ok=True)
            link.symlink_to(name)


#: What is started in a namespace of processes of its own ends with the first one there.
_ALONE = ("unshare", "--pid", "--fork", "--kill-child", "--")


@dataclass(frozen=True)
class Build:
    """Programs that run what others wrote (a package's own build), as ``user`` and never as root.

    ``directory`` is the user's meanwhile, and root's afterwards: before that, whatever they have
    started has ended.
    """

    tag: ClassVar = "build"
    user: str
    directory: str
    runs: Sequence[Run]

    def do(self, machine: Machine) -> None:
        """Run them, one after the other."""
        import pwd

        try:
            user = pwd.getpwnam(self.user)
        except KeyError:
            raise StepError(f"The machine has no user {self.user}.") from None
        ids = (f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups")
        chown_all(machine.path(self.directory), self.user)
        for run in self.runs:
            argv = [*_ALONE, "setpriv", *ids, "--no-new-privs", "--", *run.argv]
            environment = {"HOME": user.pw_dir, **run.environment}
            failure = run.failure or f"{' '.join(run.argv[:3])} failed."
            replace(run, argv=argv, environment=environment, failure=failure).do(machine)
        chown_all(machine.path(self.directory), "root")


Action = Run | Download | Verify | Unpack | Git | Link | PipInstall | SharedWheels | Build


@dataclass(frozen=True)
class _Actions:
    actions: Sequence[Action]


def read(actions: Sequence[Action | Mapping[str, Any]]) -> Sequence[Action]:
    """Actions, of which some may be as ``encode`` has them.

    Raises:
        StepError: one is not an action.
    """
    try:
        return decode(_Actions, {"actions": encode(actions)}).actions
    except SpecError as error:
        raise StepError(f"an action cannot be read: {error}") from None


def give(machine: Machine, path: str, owner: str) -> None:
    """A path and everything below it, owned and readable."""
    place = machine.path(path)
    chown_all(place, owner)
    machine.run(["chmod", "-R", "a+rX", str(place)])
