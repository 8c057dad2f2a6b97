"""A local file or directory, on its way into a machine: the spec in a line, then a tar archive."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

from declaration.connection import Connection
from declaration.source_files import files
from host.client import HostError, incus_words, shell


def upload(
    connection: Connection, project: str, machine: str, agent: Sequence[str], source: Path
) -> str:
    """Hand stdin (the step's JSON, one line) and the archive to the agent; what it prints.

    Raises:
        HostError: the agent, or the way to it, failed.
    """
    words = ["exec", machine, "--", *agent]
    command = incus_words(connection, words, project)
    argv = [*shell(connection), command]
    with subprocess.Popen(  # noqa: S603  # the operator's own host
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        if not (process.stdin and process.stdout and process.stderr):
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
        said, failure = process.stdout.read(), process.stderr.read()
        if process.wait():
            raise HostError(failure.decode(errors="replace").strip())
    return said.decode()


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member
