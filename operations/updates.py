"""``make updates``: security updates of the distribution in every machine of a stack."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from declaration.topology import DomainPlan, MachinePlan
from host.client import Client, HostError
from host.egress import Egress
from host.read import AGENT_WORDS
from operations.host import OperationError
from stack.checks import STT_ROLE
from stack.declare import Declaration
from stack.gateway import gateways_before

#: Seconds that a machine may take.
_DEADLINE = 3600


def update(declaration: Declaration) -> Iterator[tuple[MachinePlan, dict[str, Any] | str]]:
    """Update every machine; what each says (``agent.updates.update``), or why it does not.

    A domain's way out is open meanwhile, as it is for a step that fetches. Servers behind a gateway
    are updated one after the other, so that the others go on.

    Raises:
        OperationError: the bridge is not there, or Incus does not answer.
    """
    connection = declaration.settings.host_connection
    client = Client(connection)
    for domain in declaration.topology.domains:
        try:
            with _way_out(Egress(connection, domain.bridge), domain), ThreadPoolExecutor(4) as pool:
                said = pool.map(
                    lambda group: [(each, _update(client, each)) for each in group],
                    _groups(declaration, domain),
                )
                for group in said:
                    yield from group
        except HostError as error:
            raise OperationError(error.user_message) from None


def _groups(declaration: Declaration, domain: DomainPlan) -> list[list[MachinePlan]]:
    """The machines of a domain: those of a group are updated one after the other."""
    settings, topology = declaration.settings, declaration.topology
    rolling = [
        machine
        for machine in topology.with_role(STT_ROLE, domain.name)
        if gateways_before(settings, topology, machine)
    ]
    others = [[each] for each in domain.machines if each not in rolling]
    return [*([rolling] if rolling else []), *others]


def _way_out(egress: Egress, domain: DomainPlan) -> contextlib.AbstractContextManager[None]:
    return egress.open() if domain.way_out else contextlib.nullcontext()


def _update(client: Client, machine: MachinePlan) -> dict[str, Any] | str:
    words = ["exec", machine.name, "--", *AGENT_WORDS, "update"]
    try:
        done = client.run(*words, project=machine.domain, deadline=_DEADLINE)
        if "not known. Known:" in done.stderr:
            return "its agent is another version; make up installs this one's"
        if done.returncode:
            return done.stderr.strip() or "it said nothing"
        found: dict[str, Any] = json.loads(done.stdout)
    except (HostError, ValueError) as error:
        return getattr(error, "user_message", "it said nothing").strip()
    return found


def works(said: dict[str, Any] | str) -> bool:
    """Whether a machine was updated, and its services work."""
    return not isinstance(said, str) and not said["broken"]


def lines(machine: MachinePlan, said: dict[str, Any] | str) -> list[str]:
    """What was done in a machine, for people."""
    if isinstance(said, str):
        return [f"{machine.full_name}: not updated", *(f"  {line}" for line in said.splitlines())]
    count = len(said["updated"])
    noun = "security update" if count == 1 else "security updates"
    found = [f"{machine.full_name}: {count or 'no'} {noun}"]
    found += [f"  {each}" for each in said["updated"]]
    found += [f"  restarted: {', '.join(said['restarted'])}"] if said["restarted"] else []
    if old := said["old"]:
        again = f"incus restart {machine.name} --project {machine.domain}"
        found.append(f"  still using old files: {', '.join(old)}; restart when convenient: {again}")
    return [*found, *(f"  does not work: {each}" for each in said["broken"])]
