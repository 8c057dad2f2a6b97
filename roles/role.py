"""What a role is: a function from settings and machine to steps, volumes, devices and outputs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from declaration.artifacts import Artifact
from declaration.notice import Notice
from declaration.secret import secret
from declaration.settings import Settings
from declaration.step import Step
from declaration.topology import MachinePlan
from gpu.cards import Holder
from gpu.ollama import OllamaModel
from stack.declare import Declaration
from stack.role_rules import Bound

__all__ = ["CardUser", "Context", "Result", "Role", "machine_steps", "secret"]


@dataclass(frozen=True)
class Context:
    """What a role works with: the whole declaration, and the machine that it is for."""

    declaration: Declaration
    machine: MachinePlan

    @property
    def settings(self) -> Settings:
        """The stack's settings."""
        return self.declaration.settings

    def part(self, name: str) -> str:
        """The full name of a step in this machine."""
        return self.machine.resource(name)

    def base(self, *parts: str) -> list[str]:
        """Steps of the role ``base_system`` in this machine, where it has that role."""
        return [self.part(f"base_system/{part}") for part in parts if self.has("base_system")]

    def has(self, role: str) -> bool:
        """Whether this machine has a role."""
        return role in self.machine.roles


@dataclass(frozen=True)
class Result:
    """An output that a step says: what came of it, or one field of that."""

    step: str
    field: str = ""


@dataclass(frozen=True)
class CardUser:
    """What takes memory of the machine's cards, beside the STT models.

    ``unit`` is its service. From the settings and what the service answers to the agent,
    ``models`` tells the ones that are planned for, and ``loaded`` others that it holds now.
    """

    unit: str
    models: Callable[[Settings, Sequence[str]], Sequence[OllamaModel]]
    loaded: Callable[[Settings, Sequence[str]], Sequence[Holder]]


def _nothing(_: Any) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Role:
    """A role. A folder of ``roles/`` that defines ``ROLE`` is all that a new one needs.

    ``volumes`` maps storage volumes to where they are mounted; they outlive the machine. ``data``
    names those that hold what cannot be fetched again: `make backup` saves them, and
    ``stt:snapshots`` is about them. ``caches``
    are volumes that only save time: they are there where several machines of a domain have the
    role, and `destroy` always removes them.
    ``requires`` are roles that have to be on the same machine; ``shared``: several machines of a
    domain may have it; ``listens`` has its TCP ports by the setting that chooses each,
    and ``bound`` the address of those at which it listens on one only.
    ``secrets`` maps the names of secrets to what the operator gave, or to "" for one that is made
    once and kept. ``outputs`` are plain values, ``secret(NAME)``, a mapping of such, or
    ``Result``; those of a role that stands ``in_front`` of others come before theirs. A role that
    is not ``enabled`` keeps its volumes and secrets. ``warnings`` are what an operator should know.
    ``artifacts``: what its installation fetches that no pip lock names. ``card_user``: what it has
    on the cards. ``notices``: what users notice when a service changes, or its step ``secrets``,
    by ``ROLE/PART``; without one, `make review` says of a service that it restarts, and of
    ``secrets`` what it says of the role's ``service``. ``kept``: what another value of one of its
    ``secrets`` means that is made once and kept, by its name.
    """

    name: str
    description: str
    steps: Callable[[Context], Sequence[Step]]
    volumes: Mapping[str, str] = field(default_factory=dict)
    data: Collection[str] = ()
    caches: Mapping[str, str] = field(default_factory=dict)
    devices: Callable[[Context], Mapping[str, Mapping[str, str]]] = _nothing
    secrets: Callable[[Settings], Mapping[str, str]] = _nothing
    outputs: Callable[[Context], Mapping[str, Any]] = _nothing
    in_front: bool = False
    requires: Callable[[Settings], Collection[str]] = lambda _: ("base_system",)
    shared: bool = True
    listens: Callable[[Settings], Mapping[str, int]] = _nothing
    bound: Callable[[Settings], Mapping[str, Bound]] = _nothing
    enabled: Callable[[Settings], bool] = lambda _: True
    warnings: Callable[[Context], Sequence[str]] = lambda _: ()
    artifacts: Sequence[Artifact] = ()
    card_user: CardUser | None = None
    notices: Mapping[str, Notice] = field(default_factory=dict)
    kept: Mapping[str, str] = field(default_factory=dict)


def machine_steps(context: Context, roles: Iterable[Role]) -> list[Step]:
    """Every step of a machine with these roles, those that are not enabled left out."""
    enabled = [role for role in roles if role.enabled(context.settings)]
    found = [step for role in enabled for step in role.steps(context)]
    known = {step.name: step for step in found}
    wanted = {step.name for step in found if not step.if_needed}
    asked = list(wanted)
    while asked:
        step = known[asked.pop()]
        more = {*step.needs, *step.after} & known.keys() - wanted
        wanted |= more
        asked += more
    return [step for step in found if step.name in wanted]
