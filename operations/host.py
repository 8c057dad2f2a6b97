"""Scripts on the host and in machines, outside of Pulumi."""

from __future__ import annotations

import shlex
import subprocess

from components.command import incus, interpreter
from declaration.settings import Connection
from declaration.topology import MachinePlan


class OperationError(Exception):
    """It could not be done; the text says why and what to do."""


def on_host(connection: Connection, script: str, seconds: int = 60) -> str:
    """What a script says on the host.

    Raises:
        OperationError: it failed, or took longer.
    """
    try:
        done = subprocess.run(  # noqa: S603  # the operator's own host
            [*interpreter(connection), "sh -s"],
            input=script,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise OperationError(f"stt:connection is {connection}: {error}") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise OperationError(f"stt:connection is {connection}: {said[-1]}")
    return done.stdout


def in_machine(
    connection: Connection, machine: MachinePlan, script: str, seconds: int = 900
) -> str:
    """What a shell script says in a machine, as root.

    Raises:
        OperationError: the machine does not run, or the script failed.
    """
    client = f"{incus(connection, machine.domain)} exec {shlex.quote(machine.name)} -- sh -eu"
    marker = "END_OF_THE_SCRIPT"
    try:
        return on_host(connection, f"{client} <<'{marker}'\n{script}\n{marker}\n", seconds)
    except OperationError as error:
        raise OperationError(f"{machine.name}: {error}. Is it up? make up builds it.") from None
