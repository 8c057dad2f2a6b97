"""A local file or directory, on its way into a machine: the spec in a line, then a tar archive."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from declaration.connection import Connection
from declaration.source_files import files
from host.client import HostError, incus_words, shell

#: Seconds that an upload may take: a model of some GB, over a slow line.
DEADLINE = 7200


def upload(
    connection: Connection, project: str, machine: str, agent: Sequence[str], source: Path
) -> str:
    """Hand stdin (the step's JSON, one line) and the archive to the agent; what it prints.

    Raises:
        HostError: the agent, or the way to it, failed, or it took more than ``DEADLINE`` s.
    """
    words = ["exec", machine, "--", *agent]
    command = incus_words(connection, words, project)
    # `exec`, so that the process is the client and can be ended; `env` takes its variables.
    argv = [*shell(connection), f"exec env {command}"]
    with (
        tempfile.TemporaryFile() as failure,  # not a pipe: one that is full would stop both
        subprocess.Popen(  # noqa: S603  # the operator's own host
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=failure
        ) as process,
    ):
        late = threading.Event()

        def give_up() -> None:
            late.set()
            process.kill()

        watchdog = threading.Timer(DEADLINE, give_up)
        watchdog.start()
        try:
            said = _send(process, source)
            status = process.wait()
        except BaseException:
            process.kill()
            raise
        finally:
            watchdog.cancel()
        if late.is_set():
            raise HostError(f"{source} did not arrive within {DEADLINE} s.")
        if status:
            failure.seek(0)
            raise HostError(failure.read().decode(errors="replace").strip())
    return said.decode()


def _send(process: subprocess.Popen[bytes], source: Path) -> bytes:
    """Hand everything over; what the agent prints."""
    if not (process.stdin and process.stdout):
        raise AssertionError("the pipes that were asked for")
    # The agent may end early, with an error of its own that says more.
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(sys.stdin.read().rstrip("\n").encode() + b"\n")
        with tarfile.open(fileobj=process.stdin, mode="w|", dereference=True) as archive:
            for path in files(source):
                name = path.relative_to(source if source.is_dir() else source.parent)
                archive.add(path, str(name), recursive=False, filter=_anonymous)
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    return process.stdout.read()


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member
