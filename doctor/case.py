"""What the checks look at: the declaration, and the facts that were read. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from agent.kinds.program import Program
from agent.kinds.service import Service
from declaration.connection import Connection
from declaration.step import Step
from declaration.topology import DomainPlan, MachinePlan
from doctor.room import FIRST_UP, LATER_UP
from gpu.cards import Card, parse_cards
from operations.host import other_owner
from roles import ROLES
from roles.role import Context, machine_steps
from stack.declare import Declaration

#: What timeout(1) and a shell say of a program that is not there, and of one that hung.
NOT_THERE, HUNG = 127, 124


@dataclass(frozen=True)
class Answer:
    """What a program on the host said, and its exit status."""

    status: int = NOT_THERE
    text: str = ""

    @property
    def there(self) -> bool:
        """Whether the program is on the host."""
        return self.status != NOT_THERE

    @property
    def worked(self) -> bool:
        """Whether it did what it was asked for."""
        return self.status == 0

    @property
    def last(self) -> str:
        """The last line, or that it hung."""
        if self.status == HUNG:
            return "no answer in time"
        return (self.text.strip().splitlines() or ["it said nothing"])[-1]

    @cached_property
    def json(self) -> Any:
        """What it said as JSON, behind what the client may say before; None if it is none."""
        lines = self.text.splitlines(keepends=True)
        start = next((n for n, line in enumerate(lines) if line[:1] in "[{"), len(lines))
        try:
            return json.loads("".join(lines[start:])) if self.worked else None
        except ValueError:
            return None


@dataclass(frozen=True)
class Facts:
    """What was read.

    ``answers`` are the host's by name (``read.sh``); ``machines`` what the agent of each machine
    says, by its full name, or why there is no answer, as a text. ``began`` and ``ended`` are this
    computer's clock around the read, in seconds since 1970.
    """

    answers: Mapping[str, Answer] = field(default_factory=dict)
    machines: Mapping[str, Mapping[str, Any] | str] = field(default_factory=dict)
    began: float = 0.0
    ended: float = 0.0


@dataclass(frozen=True)
class Case:
    """One stack and its host.

    ``built`` are the machines that the stack's state has, by full name, and ``identity`` is the
    stack's id there; empty if this checkout has no state of it.
    """

    stack: str
    declaration: Declaration
    facts: Facts
    built: frozenset[str] = frozenset()
    identity: str = ""

    def answer(self, name: str) -> Answer:
        """What the host said, or, for what was not asked, that it is not there."""
        return self.facts.answers.get(name, Answer())

    def other_owner(self, found: Mapping[str, Any]) -> tuple[str, str, str] | None:
        """Project, stack and id of another stack that owns an instance."""
        return other_owner(found, self.stack, self.identity)

    @property
    def connection(self) -> Connection:
        """Where Incus runs."""
        return self.declaration.settings.host_connection

    @property
    def remote(self) -> bool:
        """Whether Incus' API is all that can be read of the host."""
        return self.connection.kind == "incus"

    @property
    def domains(self) -> Sequence[DomainPlan]:
        """The domains of the topology."""
        return self.declaration.topology.domains

    @cached_property
    def machines(self) -> list[MachinePlan]:
        """The machines of the topology."""
        return list(self.declaration.topology.machines)

    @cached_property
    def server(self) -> Mapping[str, Any] | None:
        """What Incus says of itself; None if it does not answer."""
        found = self.answer("server").json
        return found if isinstance(found, dict) else None

    @cached_property
    def networks(self) -> dict[str, Mapping[str, Any]]:
        """The networks and interfaces that Incus sees, by name."""
        return {each["name"]: each for each in self.answer("networks").json or []}

    @cached_property
    def members(self) -> dict[str, str]:
        """The members of the cluster with their states; none if there is no cluster."""
        every = self.answer("members").json or []
        return {str(each["server_name"]): str(each["status"]) for each in every}

    @cached_property
    def cards(self) -> list[Card]:
        """The host's graphics cards."""
        resources, said = self.answer("resources").json or {}, self.answer("nvidia_smi")
        return parse_cards(resources, said.text if said.worked else "")

    @cached_property
    def enough(self) -> int:
        """Bytes that should be free before `up`: less where the machines are there already."""
        there = [plan for plan in self.machines if self.instance(plan)]
        return LATER_UP if there else FIRST_UP

    def instance(self, plan: MachinePlan) -> Mapping[str, Any] | None:
        """A machine as Incus has it; None if it does not."""
        place = (plan.domain, plan.name)
        every = self.answer("instances").json or []
        return next((each for each in every if (each["project"], each["name"]) == place), None)

    def is_here(self, plan: MachinePlan) -> bool:
        """Whether a machine is on the member of a cluster that was looked at, or not yet there."""
        return self.is_on_host(self.instance(plan) or {})

    def is_on_host(self, instance: Mapping[str, Any]) -> bool:
        """Whether an instance is on the host, or on the member of a cluster, that was looked at."""
        here = ((self.server or {}).get("environment") or {}).get("server_name")
        return not self.members or instance.get("location", "none") in ("none", here)

    def examined(self, plan: MachinePlan) -> Mapping[str, Any]:
        """What a machine's agent said; empty if it did not answer."""
        found = self.facts.machines.get(plan.full_name, {})
        return found if isinstance(found, Mapping) else {}

    def names_of(self, plan: MachinePlan, other: MachinePlan) -> list[str]:
        """How a machine may call another one of its domain; none if it is of another domain.

        Of itself it knows its bare name without asking anybody.
        """
        if plan.domain != other.domain:
            return []
        domain = next(each.bridge for each in self.domains if each.name == plan.domain)
        config = (self.networks.get(domain) or {}).get("config") or {}
        names = [f"{other.name}.{config.get('dns.domain') or 'incus'}"]
        bare = other.name != plan.name and "base_system" in plan.roles
        return [other.name, *names] if bare else names

    def steps(self, plan: MachinePlan) -> list[Step]:
        """What this checkout would apply in a machine."""
        return self._steps[plan.full_name]

    @cached_property
    def _steps(self) -> dict[str, list[Step]]:
        """The steps of every machine, by its full name."""
        return {
            plan.full_name: machine_steps(
                Context(self.declaration, plan), (ROLES[name] for name in plan.roles)
            )
            for plan in self.machines
        }

    def programs(self, plan: MachinePlan) -> dict[str, Program]:
        """The programs that this checkout would install, by step."""
        return {s.part: s.spec for s in self.steps(plan) if isinstance(s.spec, Program)}

    def services(self, plan: MachinePlan) -> dict[str, Service]:
        """The services that this checkout would run, by step."""
        return {s.part: s.spec for s in self.steps(plan) if isinstance(s.spec, Service)}

    def into(self, plan: MachinePlan, command: str) -> str:
        """A command line that runs ``command`` in a machine."""
        return f"{self.incus} exec {plan.name} --project {plan.domain} -- {command}"

    @property
    def incus(self) -> str:
        """How the operator calls the client."""
        prefix = f"INCUS_REMOTE={self.connection.target} " if self.remote else ""
        return f"ssh {self.connection.target} incus" if self.over_ssh else f"{prefix}incus"

    @property
    def over_ssh(self) -> bool:
        """Whether the host is reached by SSH."""
        return self.connection.kind == "ssh"

    def make(self, target: str) -> str:
        """A command of this project, for this stack."""
        return f"make {target} STACK={self.stack}"
