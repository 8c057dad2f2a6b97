"""What roles ask of the machines and domains that have them, checked against the topology. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple, Protocol

from declaration.problems import Problem
from declaration.settings import Settings
from declaration.topology import DomainPlan, MachinePlan, Topology


class Bound(NamedTuple):
    """The one address on which a service listens, why, and how it listens on others too.

    ``reason`` ends a sentence that begins "as", and ``remedy`` is what to do, without a full stop.
    """

    address: str
    reason: str
    remedy: str


class RoleRules(Protocol):
    """A role, as far as the topology has to know it."""

    @property
    def requires(self) -> Callable[[Settings], Collection[str]]:
        """Roles that have to be on the same machine."""
        ...

    @property
    def shared(self) -> bool:
        """Whether several machines of a domain may have it."""
        ...

    @property
    def volumes(self) -> Mapping[str, str]:
        """Where its volumes are mounted, by their names."""
        ...

    @property
    def caches(self) -> Mapping[str, str]:
        """The same for those that several machines share."""
        ...

    @property
    def data(self) -> Collection[str]:
        """Its volumes that hold what cannot be fetched again."""
        ...

    @property
    def listens(self) -> Callable[[Settings], Mapping[str, int]]:
        """Its TCP ports by the setting that chooses each; none if it is switched off."""
        ...

    @property
    def bound(self) -> Callable[[Settings], Mapping[str, Bound]]:
        """Where it listens on one address only, by the setting that chooses the port."""
        ...


def role_conflicts(
    settings: Settings, topology: Topology, roles: Mapping[str, RoleRules]
) -> list[Problem]:
    """Roles that lack others, would share what they cannot share, or want the same port."""
    problems: list[Problem] = []
    for domain in topology.domains:
        for machine in domain.machines:
            problems += _missing(machine, settings, roles)
            problems += _same_port(machine, settings, roles)
        if not domain.part_of:
            problems += _too_many(domain, topology, roles)
    return problems


def _missing(
    machine: MachinePlan, settings: Settings, roles: Mapping[str, RoleRules]
) -> list[Problem]:
    problems: list[Problem] = []
    for role in machine.roles:
        missing = [name for name in roles[role].requires(settings) if name not in machine.roles]
        if missing:
            message = f"{role} needs {', '.join(missing)} on the same machine. Add it."
            problems.append(Problem(f"{machine.place}.roles", message))
    return problems


def _same_port(
    machine: MachinePlan, settings: Settings, roles: Mapping[str, RoleRules]
) -> list[Problem]:
    problems: list[Problem] = []
    taken: dict[int, str] = {}
    for role in machine.roles:
        for setting, port in roles[role].listens(settings).items():
            other = taken.setdefault(port, setting)
            if other != setting:
                message = (
                    f"takes port {port}, and so does {other}; both services are on the machine "
                    f"{machine.name}. Change one."
                )
                problems.append(Problem(setting, message))
    return problems


def _too_many(
    domain: DomainPlan, topology: Topology, roles: Mapping[str, RoleRules]
) -> list[Problem]:
    problems: list[Problem] = []
    machines = [each for part in topology.parts_of(domain.name) for each in part.machines]
    for role in dict.fromkeys(role for machine in machines for role in machine.roles):
        having = [machine.name for machine in machines if role in machine.roles]
        if len(having) > 1 and not roles[role].shared:
            message = (
                f"the machines {', '.join(having)} have the role {role}, and would share its data. "
                "Give it to one machine of the domain."
            )
            problems.append(Problem(domain.place, message))
    return problems
