"""A machine that did not answer the read of the host, or that moves: read while `up` runs."""

from __future__ import annotations

import asyncio
from typing import Any

import pulumi

from components.command import Command, Host
from components.incus_object import is_another
from declaration.topology import MachinePlan
from host.cluster import member_of
from host.objects import INSTANCE
from host.read import MachineState
from host.reading import read_machine


def is_unread(host: Host, plan: MachinePlan) -> bool:
    """Whether a machine that was set up is on the host, and its agent did not answer."""
    if host.live is None or not host.known(plan.resource("agent")):
        return False
    instance = host.live.find(INSTANCE.name, plan.name, plan.domain)
    if instance is None or is_another(host, plan.resource("instance"), instance):
        return False
    return (plan.domain, plan.name) not in host.live.machines


def is_moving(host: Host, plan: MachinePlan) -> bool:
    """Whether a machine that was set up is on another member of the cluster than it is to be.

    Incus does not keep all of a volume that goes through a file: the mode of its top is lost.
    """
    if host.live is None or not host.known(plan.resource("agent")):
        return False
    found = member_of(host.live.find(INSTANCE.name, plan.name, plan.domain) or {})
    return found not in ("", host.placement.of(plan.domain))


def warn(plan: MachinePlan) -> None:
    """Say what a preview cannot know."""
    pulumi.log.warn(
        f"{plan.full_name} does not answer: drift inside it was not checked. `make up` "
        "starts the machine, checks it, and restores what differs."
    )


def read_after(
    command: Command,
    host: Host,
    plan: MachinePlan,
    earlier: pulumi.Output[MachineState | None] | None = None,
) -> pulumi.Output[MachineState | None]:
    """What the machine's agent says once a Command has run; None if it does not answer.

    It is not asked again where it has answered ``earlier``.
    """

    async def read(known: list[Any]) -> MachineState | None:
        if isinstance(known[1], MachineState):
            return known[1]
        return await asyncio.to_thread(read_machine, host.connection, plan.domain, plan.name)

    return pulumi.Output.all(command.stdout, earlier).apply(read)
