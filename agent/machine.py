"""The machine that the agent works in: paths, programs, locks, and what it says meanwhile."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import io
import os
import pwd
import select
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from typing import Any

#: What this program brought into a machine, and its state there.
PROGRAMS, STATE = "/opt/incus-stt", "/var/lib/incus-stt"
#: Seconds that a step waits for what an earlier run has begun in this machine and not ended.
LOCK_DEADLINE = 1800
#: And another machine's on a volume that both have: it may be downloading a model.
VOLUME_LOCK_DEADLINE = 7200
#: Seconds that stdin may be silent before its sender is taken to be gone.
STDIN_DEADLINE = 300
_LOCKS = "/run/incus-stt"
#: On a volume that several machines may have.
VOLUME_LOCK = ".lock"
#: The machine's own bundle, also for programs that bring another one (uv, pip, requests, curl).
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
_CERTIFICATE_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT")


class StepError(Exception):
    """A step failed: what happened, what a program said about it, and what to do.

    ``unchanged``: the machine is as it was before the step.
    """

    def __init__(
        self, brief: str, *, details: str = "", resolution: str = "", unchanged: bool = False
    ) -> None:
        self.brief, self.details, self.resolution = brief, details, resolution
        self.unchanged = unchanged
        super().__init__("\n".join(filter(None, (details, brief, resolution))))

    def saying(self, *, unchanged: bool) -> StepError:
        """The same, with whether the machine is as it was."""
        return StepError(
            self.brief, details=self.details, resolution=self.resolution, unchanged=unchanged
        )


class Machine:
    """A machine. ``root`` is ``/``, or a directory in its place for tests."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root
        #: Until when this run waits for what starts by itself; 0 before it has waited.
        self.settled_by = 0.0
        self._locks: dict[str, int] = {}

    @functools.cached_property
    def stdin(self) -> io.BufferedReader:
        """What a step and its payload come in on."""
        return io.BufferedReader(_Stdin(), 1 << 20)

    def path(self, name: str | Path) -> Path:
        """Where an absolute path of the machine is."""
        return self.root / str(name).lstrip("/")

    def run(
        self,
        argv: Sequence[str],
        *,
        user: str = "",
        environment: Mapping[str, str] | None = None,
        directory: str = "/",
        text: str = "",
        check: bool = True,
        deadline: float = 3600,
        shown: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end, as ``user`` (root where empty); ``text`` is its stdin.

        It holds this run's locks too: where this run is killed, the next one waits until what it
        started has ended. At the deadline it is killed with what it started itself. ``shown``: its
        stderr goes to the operator as it comes.

        Raises:
            StepError: it failed (with ``check``), is not there, or took more than ``deadline`` s.
        """
        import signal  # not at the top: most checks run no program, and start sooner
        import subprocess

        try:
            process = subprocess.Popen(  # noqa: S603  # argv is a step's own, never a shell's text
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=None if shown else subprocess.PIPE,
                text=True,
                errors="replace",
                cwd=self.path(directory),
                env=self._environment(user, environment or {}),
                pass_fds=tuple(self._locks.values()),
                start_new_session=True,
                **self._identity(user),
            )
        except (FileNotFoundError, PermissionError) as error:
            why = f"{error.filename}: {error.strerror}"
            raise StepError(f"{argv[0]} cannot be run ({why}).") from None
        except KeyError:
            raise StepError(f"The machine has no user {user}.") from None
        with process:
            try:
                out, err = process.communicate(text, timeout=deadline)
            except BaseException as error:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
                words = " ".join(argv[:3])
                raise StepError(f"{words} … did not finish within {deadline:.0f} s.") from None
        done = subprocess.CompletedProcess(argv, process.returncode, out, err)
        if check and done.returncode:
            raise StepError(
                f"{' '.join(argv[:3])} failed with status {done.returncode}.",
                details=last_lines(done.stderr or done.stdout),
            )
        return done

    def _environment(self, user: str, more: Mapping[str, str]) -> dict[str, str]:
        home = pwd.getpwnam(user).pw_dir if user else "/root"
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        trusted = dict.fromkeys(_CERTIFICATE_VARIABLES, CERTIFICATES)
        return {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            **kept,
            **(trusted if self.path(CERTIFICATES).exists() else {}),
            "DEBIAN_FRONTEND": "noninteractive",
            "HOME": home,
            **more,
        }

    @staticmethod
    def _identity(user: str) -> dict[str, Any]:
        if not user or os.geteuid():
            return {}
        entry = pwd.getpwnam(user)
        groups = os.getgrouplist(user, entry.pw_gid)
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": groups}

    @contextlib.contextmanager
    def lock(self, name: str, deadline: float = LOCK_DEADLINE) -> Iterator[None]:
        """Be the only one that works on ``name``, a path or a service, in this machine.

        Raises:
            StepError: somebody else still works on it after ``deadline`` s.
        """
        if name in self._locks:
            yield
            return
        from urllib.parse import quote  # not at the top: a check locks nothing

        directory = self.path(_LOCKS)  # not /run/lock, where every user may hold one of our locks
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        late = StepError(
            f"An earlier run is still working on {name}, after {deadline:.0f} s.",
            resolution="Look at it (ps aux in the machine), or restart the machine.",
            unchanged=True,
        )
        waiting = "waiting for what an earlier run started in this machine"
        with (
            (directory / quote(name, safe="")).open("w") as file,
            self._held(name, file.fileno(), deadline, waiting, late),
        ):
            yield

    @contextlib.contextmanager
    def volume_lock(self, path: str) -> Iterator[None]:
        """Be the only one that writes ``path``, also among the machines that share its volume.

        The lock's file is in the nearest directory above that is root's: the volume's, for all.

        Raises:
            OSError: there is no room for the file.
            StepError: somebody else still works there after ``VOLUME_LOCK_DEADLINE`` s.
        """
        directory = self.path(path).parent
        while not directory.is_dir() or directory.stat().st_uid != os.geteuid():
            directory = directory.parent
        late = StepError(
            f"Another machine is still working on the volume of {path}, after "
            f"{VOLUME_LOCK_DEADLINE} s.",
            resolution="Look at the other machines of the domain (ps aux), or restart them. Then "
            "run up again.",
            unchanged=True,
        )
        waiting = f"waiting for another machine, which works on the same volume as {path}"
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
        descriptor = os.open(directory / VOLUME_LOCK, flags, 0o600)
        try:
            with self._held(str(directory), descriptor, VOLUME_LOCK_DEADLINE, waiting, late):
                yield
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _held(
        self, name: str, descriptor: int, deadline: float, waiting: str, late: StepError
    ) -> Iterator[None]:
        """Hold the lock of an open file; programs that this run starts hold it too."""
        if not flock(descriptor):
            if deadline:
                say(waiting)
            if not poll(lambda: flock(descriptor), deadline):
                raise late
        self._locks[name] = descriptor
        try:
            yield
        finally:
            del self._locks[name]


class _Stdin(io.RawIOBase):
    """Standard input, with a deadline for every read."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not select.select([0], [], [], STDIN_DEADLINE)[0]:
            raise TimeoutError(f"nothing more arrived for {STDIN_DEADLINE} s")
        data = os.read(0, len(buffer))
        buffer[: len(data)] = data
        return len(data)


def flock(descriptor: int, *, shared: bool = False) -> bool:
    """Lock an open file, unless somebody else has; whether it is locked.

    ``shared``: together with others that say so.
    """
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def poll(done: Callable[[], bool], deadline: float, interval: float = 0.1) -> bool:
    """Ask again and again until ``done`` is true or ``deadline`` s are over; whether it is true."""
    end = time.monotonic() + deadline
    while not done():
        if time.monotonic() >= end:
            return False
        time.sleep(interval)
    return True


def say(text: str) -> None:
    """Tell the operator what is going on; a client that has gone does not stop the work."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def last_lines(text: str, count: int = 12) -> str:
    """The last lines of what a program said."""
    return "\n".join(text.strip().splitlines()[-count:])
