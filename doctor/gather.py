"""Reads the facts: one script where Incus runs, then one call of each machine's agent."""

from __future__ import annotations

import json
import secrets
import shlex
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.cards import NVIDIA_SMI_FIELDS
from declaration.topology import MachinePlan
from doctor.case import Answer, Case, Facts
from host.client import Client, HostError, remote_variable
from host.read import AGENT_WORDS
from host.reading import explain
from operations.host import OperationError, on_host
from operations.stack import ROOT
from operations.state import name_of, saved_resources, stack_id
from stack.declare import Declaration

_SCRIPT = Path(__file__).with_name("read.sh")
#: Seconds that the host, and a machine, may take.
_DEADLINE, _MACHINE_DEADLINE = 120, 60


def gather(declaration: Declaration, stack: str) -> Case:
    """Everything that the checks look at. Nothing is changed.

    Raises:
        OperationError: the host cannot be reached, or of a remote Incus does not answer.
    """
    connection, began = declaration.settings.host_connection, time.time()
    token = secrets.token_hex(8)
    # This checkout's disk has the state; where Incus is elsewhere, it is not the host's.
    own = [str(ROOT), str(ROOT / "state")] if connection.kind == "local" else []
    places = ["/var/lib/incus", *own]
    words = [token, connection.kind, declaration.settings.pool, NVIDIA_SMI_FIELDS, *places]
    remote = remote_variable(connection)
    script = f"{f'export {remote}' if remote else ''}\nset -- {shlex.join(words)}\n"
    said = on_host(connection, script + _SCRIPT.read_text(encoding="utf-8"), _DEADLINE)
    answers = parse(said, token)
    if connection.kind == "incus" and not answers["server"].worked:
        raise OperationError(explain(connection, answers["server"].text.strip()))
    saved = saved_resources(stack)
    read = Facts(answers, {}, began, time.time())
    host = Case(stack, declaration, read, built(saved), stack_id(saved))
    with ThreadPoolExecutor(4) as pool:
        asked = [plan for plan in host.machines if _answers(host, plan)]
        found = pool.map(lambda plan: _examine(host, plan), asked)
        machines = dict(zip((plan.full_name for plan in asked), found, strict=True))
    facts = Facts(answers, machines, began, time.time())
    return replace(host, facts=facts)


def parse(said: str, token: str) -> dict[str, Answer]:
    """The answers by name."""
    found: dict[str, Answer] = {}
    for part in said.split(f"{token} ")[1:]:
        head, _, text = part.partition("\n")
        name, _, status = head.partition(" ")
        found[name] = Answer(int(status), text.removesuffix("\n"))
    return found


def _answers(case: Case, plan: MachinePlan) -> bool:
    """Whether a machine is this stack's, and runs."""
    found = case.instance(plan)
    return found is not None and not case.other_owner(found) and found.get("status") == "Running"


def _examine(case: Case, plan: MachinePlan) -> Mapping[str, Any] | str:
    names = [name for each in case.machines for name in case.names_of(plan, each)]
    words = ["exec", plan.name, "--", *AGENT_WORDS, "examine", *names]
    try:
        said = Client(case.connection).call(*words, project=plan.domain, deadline=_MACHINE_DEADLINE)
        found: Mapping[str, Any] = json.loads(said)
    except (HostError, ValueError) as error:
        lines = getattr(error, "user_message", "").strip().splitlines()
        return str(lines[-1]) if lines else "it said nothing"
    return found


def built(resources: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """The machines that a state says were built."""
    names = map(name_of, resources)
    return frozenset(name.removesuffix("/instance") for name in names if name.endswith("/instance"))
