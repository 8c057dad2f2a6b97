"""Directories of the tests' own servers, and what a run that was cut off has left of them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from tests.e2e.memory_pool import PLACE
from tests.e2e.project import run

_PREFIX, _PLACE = "stt-e2e-", Path("/tmp")


def new_directory() -> Path:
    """A short path, for sockets have little room for theirs."""
    return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_PLACE))


def note(directory: Path, process: subprocess.Popen[bytes]) -> None:
    """Remember a server that runs in a process group of its own."""
    (directory / f"{process.pid}.pid").touch()


def disk_of(directory: Path) -> Path:
    """The file of a disk that is mounted at a directory; in memory, where there is a pool."""
    return PLACE / f"{directory.name}.disk" if PLACE.is_mount() else Path(f"{directory}.disk")


def remove(directory: Path) -> None:
    """Remove a directory, with what is mounted in it, on it, and the disk below it."""
    remove_cgroups(directory)
    for path in _mounts(directory):
        run("umount", "-l", path)
    shutil.rmtree(directory, ignore_errors=True)
    disk_of(directory).unlink(missing_ok=True)


def remove_cgroups(directory: Path) -> None:
    """Remove the cgroups of the containers that a daemon had, which go with it but not by it.

    What was just killed keeps them for a moment.
    """
    names = [container.name for container in directory.glob("**/containers/*")]
    end = time.monotonic() + 2
    while (
        left := [group for name in names for group in _cgroups(name)]
    ) and time.monotonic() < end:
        for group in left:
            for path in sorted(group.glob("**/"), reverse=True):
                with contextlib.suppress(OSError):
                    path.rmdir()
        time.sleep(0.05)


def _cgroups(container: str) -> list[Path]:
    """The cgroups of a container; their names end with a number where there was one already."""
    patterns = (f"*/lxc.*.{container}", f"*/lxc.*.{container}-[0-9]")
    return [path for each in patterns for path in Path("/sys/fs/cgroup").glob(each)]


def _mounts(directory: Path) -> list[str]:
    """What is mounted at a directory or below it, the last first."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    paths = [line.split(" ")[1] for line in lines]
    return [path for path in reversed(paths) if Path(path).is_relative_to(directory)]


def remove_leftovers() -> None:
    """End the servers of runs that were cut off, and remove their directories."""
    for noted in _PLACE.glob(f"{_PREFIX}*/*.pid"):
        if str(noted.parent) in _told(noted.stem, "cmdline") + _told(noted.stem, "environ"):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(int(noted.stem), signal.SIGKILL)
    # What these have started themselves names their directory: DHCP servers, proxies.
    servers = ("dnsmasq", "incusd", "[lxc monitor]")
    for process in Path("/proc").glob("[0-9]*"):
        told = _told(process.name, "cmdline")
        if f"{_PLACE}/{_PREFIX}" in told and any(name in told for name in servers):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(process.name), signal.SIGKILL)
    for directory in _PLACE.glob(f"{_PREFIX}*"):
        if directory.is_dir():
            remove(directory)


def _told(process: str, file: str) -> str:
    """What /proc says of a process; empty where it has ended."""
    try:
        return Path("/proc", process, file).read_text(errors="replace")
    except OSError:
        return ""
