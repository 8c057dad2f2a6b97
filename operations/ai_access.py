"""`make ai-access`: who reaches the AI services of another domain, and another one's turn.

The change itself is the program's (``components.ai_access``): this checks the name, says which
resources it is about, and verifies by packets what came of it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from ipaddress import IPv4Network
from pathlib import Path

from declaration.policy import Flow
from declaration.problems import show, suggest
from declaration.topology import DomainPlan, MachinePlan
from host.client import Client, HostError
from host.conntrack import cut
from host.objects import ACL, AI_SUFFIX, Place
from operations.host import OperationError, run_program
from operations.memory import flush
from stack.ai_access import HAND_OVER, NOBODY, AiAccess, ai_access, reached_by
from stack.declare import Declaration

#: Runs in each machine that is asked whom it reaches.
PROGRAM = Path(__file__).parent / "machine" / "reach.py"
#: Seconds that a connection may take; where the way is closed, all of them pass.
_PATIENCE = 2
#: Seconds within which a service listens again that was restarted.
_STARTS_WITHIN = 20


def access_of(declaration: Declaration) -> AiAccess:
    """Who has the access.

    Raises:
        OperationError: it is open to all.
    """
    access = ai_access(declaration.settings, declaration.topology)
    if access is None:
        raise OperationError(_open(declaration))
    return access


def _open(declaration: Declaration) -> str:
    return (
        f"global.ai_access is open in {declaration.settings.infra}: whoever policy lets reach the "
        "AI services reaches them. For one domain at a time set it to exclusive, and "
        "ai_access_default to a domain (docs/topology.md)."
    )


def report(declaration: Declaration, stack: str) -> list[str]:
    """Who has the access, who may get it, and whom the host lets in where that is another one.

    Raises:
        OperationError: the host cannot be reached.
    """
    access = ai_access(declaration.settings, declaration.topology)
    if access is None:
        return [_open(declaration)]
    lines = [f"AI access: {access.holder}"]
    for name, flows in access.flows.items():
        how = "has it" if name == access.holder else f"make ai-access STACK={stack} DOMAIN={name}"
        lines.append(f"  {name}: {how}")
        lines += [f"    {flow}" for flow in flows]
    let_in = _let_in(declaration, access)
    if let_in is None:
        lines.append(f"Nothing is built yet: make up STACK={stack}")
    elif let_in != [name for name in access.candidates if name == access.holder]:
        found = ", ".join(let_in) or NOBODY
        lines.append(f"The host lets in: {found}. To change that: make up STACK={stack}")
    return lines


def targets(declaration: Declaration, stack: str, domain: str) -> list[str]:
    """The resources that give a domain the access, by patterns of their URNs.

    Raises:
        OperationError: it is open to all, the domain may not get it, or the stack is not built.
    """
    access = access_of(declaration)
    allowed = [*access.candidates, NOBODY]
    if domain not in allowed:
        raise OperationError(
            f"DOMAIN: {show(domain)} is not a domain that may get the AI access."
            f"{suggest(domain, allowed)} Allowed: {', '.join(allowed)}."
        )
    if _let_in(declaration, access) is None:
        raise OperationError(f"the host has no rules for it yet. First: make up STACK={stack}.")
    parts = [f"{each.name}/acl/{part}" for each in _served(access) for part in ("ai", "ai-opened")]
    return [f"**::{resource}" for resource in (HAND_OVER, *parts)]


def _served(access: AiAccess) -> list[DomainPlan]:
    """The domains whose services others take turns at."""
    flows = [flow for each in access.flows.values() for flow in each]
    names = {machine.domain for flow in flows for machine in reached_by(flow, access.topology)}
    return [each for each in access.topology.domains if each.name in names]


def _let_in(declaration: Declaration, access: AiAccess) -> list[str] | None:
    """The domains that the host lets in now; None if a bridge has no rules for it."""
    client = Client(declaration.settings.host_connection)
    rules: list[Mapping[str, str]] = []
    for domain in _served(access):
        try:
            found = client.get(Place(f"{domain.bridge}{AI_SUFFIX}", "default").path(ACL))
        except HostError as error:
            raise OperationError(error.user_message) from None
        if found is None:
            return None
        rules += found["ingress"]
    sources = {rule.get("source", "") for rule in rules}
    return [
        name
        for name, flows in access.flows.items()
        if any(",".join(flow.sources) in sources for flow in flows)
    ]


def hand_over(declaration: Declaration) -> list[str]:
    """Have the services forget who had the access: open connections are cut, the models unloaded.

    Raises:
        OperationError: a service keeps its model, its machine does not run, or the access is open
            to all.
    """
    flows = [flow for each in access_of(declaration).flows.values() for flow in each]
    for source, to in {(source, flow.destinations) for flow in flows for source in flow.sources}:
        cut(declaration.settings.host_connection, source, to)
    lines, free = flush(declaration, restart=True)
    if not free:
        raise OperationError(
            f"no other domain is let in now, because a service kept its model: {'; '.join(lines)}. "
            "Once it works again (make status), run make up."
        )
    return lines


def verify(declaration: Declaration) -> tuple[list[str], bool]:
    """Try by packets what is open to each domain, or held; the lines, and whether it is so.

    Raises:
        OperationError: it is open to all, or a machine cannot be asked.
    """
    access = access_of(declaration)
    lines, right = [f"AI access: {access.holder}"], True
    for name, flows in access.flows.items():
        has_it = name == access.holder
        asked = _asked(declaration, access, name, flows)
        if not asked:
            lines.append(f"  {name}: not verified: no machine named in its rules is running")
        for machine, ends in asked:
            said = _try(declaration, machine, ends, has_it)
            wrong = [end for end, how in said.items() if (how == "silent") == has_it]
            found = ", ".join(f"{end} {how}" for end, how in said.items())
            verdict = f", and should {'get' if has_it else 'not get'} through" if wrong else ""
            lines.append(f"  {name}: {machine.full_name} to {found}{verdict}")
            right = right and not wrong
    return lines, right


def _asked(
    declaration: Declaration, access: AiAccess, name: str, flows: list[Flow]
) -> list[tuple[MachinePlan, list[str]]]:
    """For each rule the first machine that runs, with the addresses and ports that it tries."""
    domain = next(each for each in access.topology.domains if each.written == name)
    ends: dict[str, list[str]] = {}
    running = [machine for machine in domain.machines if _runs(declaration, machine)]
    for flow in flows if running else ():
        if flow.protocol != "tcp":
            continue
        source = IPv4Network(flow.sources[0])
        for machine in [each for each in running if each.address in source][:1]:
            ends.setdefault(machine.name, []).extend(
                f"{reached.address}:{port}"
                for reached in reached_by(flow, access.topology)
                for port in flow.ports
            )
    return [
        (machine, sorted(set(ends[machine.name]))) for machine in running if machine.name in ends
    ]


def _runs(declaration: Declaration, machine: MachinePlan) -> bool:
    client = Client(declaration.settings.host_connection)
    try:
        found = client.get(f"/1.0/instances/{machine.name}?project={machine.domain}") or {}
    except HostError as error:
        raise OperationError(error.user_message) from None
    return found.get("status") == "Running"


def _try(
    declaration: Declaration, machine: MachinePlan, ends: list[str], has_it: bool
) -> dict[str, str]:
    """How each connection goes; a service that was restarted is given time to listen again."""
    end = time.monotonic() + _STARTS_WITHIN
    words = [str(_PATIENCE), *ends]
    while True:
        said = run_program(declaration.settings.host_connection, machine, PROGRAM, words)
        found: dict[str, str] = json.loads(said)
        if not has_it or set(found.values()) == {"connected"} or time.monotonic() > end:
            return found
        time.sleep(0.5)
