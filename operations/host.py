"""Programs on the host and in machines, outside of Pulumi."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from declaration.connection import Connection
from declaration.stack_file import PROJECT
from declaration.topology import MachinePlan
from host.client import Client, HostError, shell
from host.objects import owner_of, split_owner
from stack.declare import Declaration

#: Takes a program from stdin into a file, then runs the words that follow with it.
_WITH_FILE = """set -eu
work=$(mktemp -d -p /var/tmp)
trap 'rm -rf "$work"' EXIT
cat >"$work/program.py"
python=$1
shift
"$python" "$work/program.py" "$@" </dev/null
"""


class OperationError(Exception):
    """It could not be done; the text says why and what to do."""


def other_owner(found: Mapping[str, Any], stack: str, identity: str) -> tuple[str, str, str] | None:
    """Project, stack and id of another stack that owns an object; None if none does.

    ``identity`` is the id of the stack that this is about; if it is empty, names decide.
    """
    owner = split_owner(owner_of(found))
    project, other, theirs = owner
    if not project or (
        (project, other) == (PROJECT, stack) and (not identity or theirs in ("", identity))
    ):
        return None
    return owner


def refuse_others(declaration: Declaration, stack: str, identity: str = "") -> None:
    """Leave the machines of another stack alone; ``identity`` is this one's id where it is known.

    Raises:
        OperationError: a machine's owner is another stack.
    """
    client = Client(declaration.settings.host_connection)
    for machine in declaration.topology.machines:
        try:
            found = client.get(f"/1.0/instances/{machine.name}?project={machine.domain}") or {}
        except HostError as error:
            raise OperationError(error.user_message) from None
        if owner := other_owner(found, stack, identity):
            project, other, theirs = owner
            whose = f"{machine.name} belongs to the stack {other} of the project {project}"
            if (project, other) == (PROJECT, stack):
                raise OperationError(
                    f"{whose} with the id {theirs}, which another checkout has built. This "
                    f"checkout's has the id {identity}. Work there, or give this stack an "
                    "environment (stt:environment) or a topology file (stt:infra) of its own."
                )
            raise OperationError(
                f"{whose}, and this is about the stack {stack}. Name the stack: STACK={other}."
            )


def on_host(connection: Connection, script: str, deadline: float = 60) -> str:
    """What a shell script says on the host.

    Raises:
        OperationError: it failed, or took more than ``deadline`` s.
    """
    try:
        done = subprocess.run(  # noqa: S603  # the operator's own host
            [*shell(connection), "sh -s"],
            input=script,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=deadline,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise OperationError(f"stt:connection is {connection}: {error}") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise OperationError(f"stt:connection is {connection}: {said[-1]}")
    return done.stdout


def run_program(
    connection: Connection,
    machine: MachinePlan,
    program: Path,
    arguments: Sequence[str],
    *,
    python: str = "python3",
    user: str = "",
    environment: Sequence[str] = (),
    deadline: float = 900,
) -> str:
    """What a Python program of this project says in a machine, as ``user`` (root where empty).

    ``environment`` are ``NAME=VALUE``.

    Raises:
        OperationError: the machine does not run, or the program failed.
    """
    become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--"]
    words = ["exec", machine.name, "--", *(become if user else ()), "env", *environment]
    words += ["sh", "-c", _WITH_FILE, "sh", python]
    client = Client(connection)
    try:
        return client.call(
            *words,
            *arguments,
            project=machine.domain,
            stdin=program.read_text(encoding="utf-8"),
            deadline=deadline,
        )
    except HostError as error:
        said = error.user_message.strip().splitlines() or ["it said nothing"]
        why = not_running(client, machine) or said[-1]
        raise OperationError(f"{machine.full_name}: {why}") from None


def not_running(client: Client, machine: MachinePlan) -> str:
    """Why nothing can be asked in a machine, and what to do; empty if it runs.

    Empty too where Incus does not answer: what it said of the command is then all there is.
    """
    try:
        found = client.get(f"/1.0/instances/{machine.name}?project={machine.domain}", deadline=30)
    except HostError:
        return ""
    if found is None:
        return "it is not there yet: make up builds it"
    state = str(found.get("status", "Running"))
    return "" if state == "Running" else f"it is {state.lower()}: make up starts it"
