"""What a role is: a ComponentResource that turns a machine into something."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import pulumi

from components.api_key import ApiKey
from components.facts import Fact
from components.instance import Instance
from declaration.settings import Settings
from declaration.topology import MachinePlan, Topology
from stack.declare import Declaration

Facts = dict[str, list[Fact]]


class Shared:
    """What several machines need to have in common."""

    def __init__(self, settings: Settings) -> None:
        self._stt_key = settings.apiKey
        self._admin_password = settings.adminPassword
        self._protect = settings.protect
        self._made: dict[str, pulumi.Output[str]] = {}

    def secret(self, name: str) -> pulumi.Output[str]:
        """A secret that is made once and kept, by name."""
        if name not in self._made:
            self._made[name] = pulumi.Output.secret(ApiKey(name, self._protect).stdout)
        return self._made[name]

    @property
    def stt_key(self) -> pulumi.Output[str]:
        """The STT service's key: the operator's, else one that is made once and kept."""
        return (
            pulumi.Output.secret(self._stt_key) if self._stt_key else self.secret("stt_server/key")
        )

    @property
    def admin_password(self) -> pulumi.Output[str]:
        """The password of Open WebUI's administrator: the operator's, else one made and kept."""
        if self._admin_password:
            return pulumi.Output.secret(self._admin_password)
        return self.secret("open_webui/admin-password")


@dataclass(frozen=True)
class Context:
    """What a role knows: the whole declaration, and the machine that it works on."""

    declaration: Declaration
    plan: MachinePlan
    instance: Instance
    shared: Shared

    @property
    def settings(self) -> Settings:
        """The stack's settings."""
        return self.declaration.settings

    @property
    def topology(self) -> Topology:
        """All machines."""
        return self.declaration.topology

    def name(self, part: str) -> str:
        """A resource name within this machine."""
        return self.plan.resource(part)


class Role(pulumi.ComponentResource):
    """A role of a machine; a subclass decorated with ``@role`` is all that a new role needs.

    ``volumes`` maps the storage volumes that it needs to where they are mounted; ``ready`` is the
    resource after which the role does its work.
    """

    volumes: ClassVar[dict[str, str]] = {}
    ready: pulumi.Resource

    def __init__(
        self, context: Context, needs: Sequence[pulumi.Resource], opts: pulumi.ResourceOptions
    ) -> None:
        kind = type(self).__name__
        super().__init__(f"stt:role:{kind}", context.name(role_name(type(self))), None, opts)
        self.context = context
        self.build(needs)
        self.register_outputs({})

    @classmethod
    def facts(cls, declaration: Declaration, plan: MachinePlan) -> Facts:
        """What the role's resources make in the machine, by their names."""
        raise NotImplementedError

    def build(self, needs: Sequence[pulumi.Resource]) -> None:
        """Make the role's resources; ``needs`` come before them. Sets ``ready``."""
        raise NotImplementedError

    @classmethod
    def devices(cls, settings: Settings) -> dict[str, dict[str, str]]:
        """Incus devices that a machine with this role has."""
        return {}

    def verify(self, roles: Mapping[str, Role]) -> None:
        """Prove that it works with the domain's other roles, which are all there by now."""

    @classmethod
    def wanted(cls, settings: Settings) -> bool:
        """Whether the stack configuration leaves the role switched on."""
        return True


#: Every role, by the name that infra.yml uses.
ROLES: dict[str, type[Role]] = {}


def role(name: str) -> Callable[[type[Role]], type[Role]]:
    """Register a class as the role ``name``."""

    def register(cls: type[Role]) -> type[Role]:
        ROLES[name] = cls
        return cls

    return register


def role_name(cls: type[Role]) -> str:
    """The name under which a class is registered."""
    return next(name for name, registered in ROLES.items() if registered is cls)
