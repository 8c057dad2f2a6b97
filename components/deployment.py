"""All of a stack: its domains, the steps of their machines, the outputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter
from typing import Any

import pulumi

from agent.kinds.secret_files import SecretFiles
from components.ai_access import give_ai_access
from components.command import Command, Host
from components.domain import Domain, Machine
from components.idmap import shifted_volumes
from components.kept_values import Secrets
from components.restarts import restart_notes
from components.step import StepCommand, late_drift
from declaration.secret import fill_secrets, secret_names
from declaration.step import Step
from declaration.topology import DomainPlan
from roles import ROLES
from roles.role import Context, Result, machine_steps
from stack.declare import Declaration
from stack.dns import named_servers
from stack.flows import borders, warnings


class RoleGroup(pulumi.ComponentResource):
    """A role of a machine: the parent of its steps."""

    def __init__(self, name: str, machine: Machine) -> None:
        super().__init__("stt:machine:Role", name, None, pulumi.ResourceOptions(parent=machine))


def steps_in_order(steps: Sequence[Step]) -> list[Step]:
    """Steps so that each comes after what it needs."""
    named = {step.name: step for step in steps}
    graph = {name: [*step.needs, *step.after, *step.follows] for name, step in named.items()}
    for name, needs in graph.items():
        if missing := [need for need in needs if need not in named]:
            raise ValueError(
                f"The step {name} needs {', '.join(missing)}: no role of this machine has such a "
                "step. A name is DOMAIN/MACHINE/ROLE/PART; context.part(…) makes one."
            )
    return [named[name] for name in TopologicalSorter(graph).static_order()]


def contexts(declaration: Declaration) -> list[tuple[str, Context]]:
    """Every enabled role of every machine, in the order of the topology."""
    return [
        (name, Context(declaration, machine))
        for machine in declaration.topology.machines
        for name in machine.roles
        if ROLES[name].enabled(declaration.settings)
    ]


def declared_steps(declaration: Declaration) -> list[Step]:
    """The steps of every machine."""
    return [
        step
        for machine in declaration.topology.machines
        for step in machine_steps(
            Context(declaration, machine), (ROLES[name] for name in machine.roles)
        )
    ]


def _volumes(domain: DomainPlan) -> dict[str, dict[str, str]]:
    """What each machine has mounted.

    A role that is switched off keeps its volumes: nothing that was fetched is lost.
    """
    machines = Counter(role for machine in domain.machines for role in set(machine.roles))
    found: dict[str, dict[str, str]] = {}
    for machine in domain.machines:
        mounts = found.setdefault(machine.name, {})
        for role in machine.roles:
            mounts |= ROLES[role].volumes
            if machines[role] > 1:
                mounts |= ROLES[role].caches
    return found


class Deployment:
    """Registers everything of a declaration."""

    def __init__(self, declaration: Declaration, host: Host) -> None:
        settings = declaration.settings
        self._declaration, self._host = declaration, host
        used = {role for machine in declaration.topology.machines for role in machine.roles}
        given = {k: v for role in sorted(used) for k, v in ROLES[role].secrets(settings).items()}
        self._secrets = Secrets(given, host, settings.protect)
        self._contexts = contexts(declaration)
        self._machines: dict[tuple[str, str], Machine] = {}
        self._borders = borders(declaration, ROLES)
        domains: list[Domain] = []
        for plan in declaration.topology.domains:
            machines = {machine.name: Context(declaration, machine) for machine in plan.machines}
            domain = Domain(
                plan,
                host,
                settings,
                self._borders[plan.name],
                named_servers(self._borders[plan.name], declaration.topology),
                _volumes(plan),
                {name: self._devices(context) for name, context in machines.items()},
                {name for role in used for name in ROLES[role].caches},
                {name for role in used for name in ROLES[role].data},
                {name for each in machines.values() for name in shifted_volumes(each.machine)},
            )
            self._machines |= {(plan.name, name): m for name, m in domain.machines.items()}
            domains.append(domain)
        self._groups: dict[str, RoleGroup] = {}
        self._commands: dict[str, StepCommand] = {}
        declared = steps_in_order(declared_steps(declaration))
        # A gateway, for one, would try a server on a member that does not answer.
        host.waiting = {step.name for step in declared if any(map(host.is_left, step.after))}
        for step in declared:
            if not host.skips(step.name):
                self._commands[step.name] = self._register(step)
        self._keep_left()
        steps = self._commands.values()
        closed = [
            (
                domain,
                domain.close([each for each in steps if each.step.machine[0] == domain.plan.name]),
            )
            for domain in domains
            if not host.skips(domain.closing)
        ]
        give_ai_access(host, closed)

    def _devices(self, context: Context) -> dict[str, Mapping[str, str]]:
        return {
            name: device
            for role in context.machine.roles
            if ROLES[role].enabled(context.settings)
            for name, device in ROLES[role].devices(context).items()
        }

    def _keep_left(self) -> None:
        """Keep the steps of machines that are left as they are and that are no longer declared.

        They go once their machine can be reached.
        """
        for name, outputs in self._host.state.resources.items():
            domain, _, rest = name.partition("/")
            machine, _, part = rest.partition("/")
            owner = self._machines.get((domain, machine))
            if owner and "/" in part and self._host.is_left(name) and name not in self._commands:
                within = pulumi.ResourceOptions(
                    parent=self._group(owner, part.partition("/")[0]),
                    depends_on=[owner.agent],
                    deleted_with=owner.instance,
                )
                Command(name, self._host, create=outputs["create"], opts=within)

    def _group(self, machine: Machine, role: str) -> RoleGroup:
        name = machine.plan.resource(role)
        if name not in self._groups:
            self._groups[name] = RoleGroup(name, machine)
        return self._groups[name]

    def _register(self, step: Step) -> StepCommand:
        machine = self._machines[step.machine]
        needs: dict[str, Command] = {
            name: self._commands[name]
            for name in (*step.needs, *step.after, *step.follows)
            if name in self._commands
        }
        under = {
            name: self._commands[name]
            for name in step.needs
            if name in needs and not isinstance(self._commands[name].step.spec, SecretFiles)
        }
        late = None
        if machine.late is not None:
            later = {name: each.late for name, each in under.items() if each.late is not None}
            late = late_drift(self._host, step, machine.late, later)
        return StepCommand(
            step,
            machine.plan,
            self._host,
            self._secrets,
            agent=machine.agent,
            machine=machine.instance,
            needs=list(needs.values()),
            after={name: self._commands[name] for name in step.after if name in needs},
            restored=[name for name in under if name in self._host.drift],
            late=late,
            way_out=machine.way_out,
            opts=pulumi.ResourceOptions(parent=self._group(machine, step.role)),
        )

    def warnings(self) -> list[str]:
        """What the operator should know, each once."""
        found = [text for name, each in self._contexts for text in ROLES[name].warnings(each)]
        left = self._host.placement.warnings()
        return list(dict.fromkeys([*left, *found, *warnings(self._declaration.topology)]))

    def notes(self) -> list[str]:
        """What else the operator should know before anything is done."""
        steps = [each.step for each in self._commands.values()]
        return list(restart_notes(self._host, steps, self._declaration.engine.name))

    def outputs(self) -> dict[str, Any]:
        """The stack's outputs.

        Where several machines have the same ones, they are those of what stands in front of the
        others, or else of the first machine; ``machines`` has each machine's own. Secrets are the
        same for all.
        """
        found: dict[str, Any] = {}
        machines: dict[str, dict[str, Any]] = {}
        repeated = False
        for name, context in sorted(self._contexts, key=lambda each: not ROLES[each[0]].in_front):
            own = machines.setdefault(context.machine.full_name, {})
            for key, value in ROLES[name].outputs(context).items():
                repeated = repeated or key in found
                output = self._output(value)
                found.setdefault(key, output)
                if not _secrets_in(value):
                    own[key] = output
        flows = dict.fromkeys(text for each in self._borders.values() for text in each.shown)
        more: dict[str, Any] = {"machines": machines} if repeated else {}
        if members := self._host.placement.members:
            topology = self._declaration.topology
            more["members"] = {each.full_name: members[each.domain] for each in topology.machines}
        return {**found, **more, "allowed_traffic": list(flows)}

    def _result(self, value: Result) -> pulumi.Output[Any] | None:
        if value.step not in self._commands:
            return None  # its machine has been left as it is
        result, field = self._commands[value.step].result, value.field
        return result.apply(lambda said: said.get(field)) if field else result

    def _output(self, value: Any) -> Any:
        if isinstance(value, Result):
            return self._result(value)
        if isinstance(value, list):
            return pulumi.Output.all(*(self._output(item) for item in value)).apply(merge_results)
        names = _secrets_in(value)
        if names and isinstance(value, Mapping):
            return self._secrets.values(names).apply(
                lambda known: {key: fill_secrets(text, known) for key, text in value.items()}
            )
        if names:
            return self._secrets.values(names).apply(lambda known: fill_secrets(value, known))
        return value


def _secrets_in(value: Any) -> list[str]:
    """The secrets that an output names."""
    texts = value.values() if isinstance(value, Mapping) else [value]
    return [name for text in texts if isinstance(text, str) for name in secret_names(text)]


def merge_results(results: Sequence[Any]) -> dict[str, Any]:
    """Several results as one."""
    merged: dict[str, Any] = {}
    for result in results:
        merged |= result if isinstance(result, Mapping) else {}
    return merged
