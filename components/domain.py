"""A domain: an Incus project with its bridge, profiles, volumes and machines."""

from __future__ import annotations

from typing import Any

import pulumi

from components.command import incus
from components.incus_object import MARK, PROJECT, IncusObject
from components.instance import Instance, desired_instance
from components.network import Network
from components.profile import Profile, desired_default_profile, desired_profile
from components.roles import ROLES, Context, Shared
from components.roles.role import Role
from components.templates import render
from components.volume import Volume
from declaration.settings import Settings
from declaration.topology import DomainPlan, MachinePlan
from stack.declare import Declaration


def desired_project(plan: DomainPlan) -> dict[str, Any]:
    """The project: images and networks are Incus' own, the rest is apart from other projects."""
    return {
        "description": plan.domain.description or f"incus-stt: {plan.domain.trust_level}",
        "config": {
            "features.images": "false",
            "features.networks": "false",
            "features.profiles": "true",
            "features.storage.buckets": "true",
            "features.storage.volumes": "true",
            **MARK,
        },
    }


def delete_project(name: str, settings: Settings) -> str:
    """The script that removes a project; one that still has volumes stays, and says so."""
    return render(
        "host/delete_project.sh.j2",
        incus=incus(settings.where),
        name=name,
    )


def volumes_of(machine: MachinePlan) -> dict[str, str]:
    """The volumes that a machine's roles need, and where they are mounted.

    A role that is switched off keeps its volume: nothing that was fetched is lost.
    """
    return {name: path for role in machine.roles for name, path in ROLES[role].volumes.items()}


def devices_of(machine: MachinePlan, settings: Settings) -> dict[str, dict[str, str]]:
    """The devices that a machine's roles bring."""
    wanted = [ROLES[role] for role in machine.roles if ROLES[role].wanted(settings)]
    return {name: device for role in wanted for name, device in role.devices(settings).items()}


class Domain(pulumi.ComponentResource):
    """Everything of one domain. ``roles`` holds what each machine's roles came to, by role name."""

    def __init__(
        self,
        plan: DomainPlan,
        declaration: Declaration,
        shared: Shared,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        settings = declaration.settings
        # Every child inherits it.
        guarded = pulumi.ResourceOptions(protect=settings.protect)
        opts = pulumi.ResourceOptions.merge(opts, guarded)
        super().__init__("stt:incus:Domain", plan.name, None, opts)
        where = settings.where
        mine = pulumi.ResourceOptions(parent=self)
        project = IncusObject(
            f"{plan.name}/project",
            PROJECT,
            [plan.name],
            desired_project(plan),
            connection=where,
            project="",
            delete=delete_project(plan.name, settings),
            opts=mine,
        )
        after = pulumi.ResourceOptions(parent=self, depends_on=[project])
        network = Network(plan, where, after).object
        in_network = pulumi.ResourceOptions(parent=self, depends_on=[network])
        default = desired_default_profile(plan.bridge, settings.pool)
        # Machines with a disk in one storage pool cannot get another.
        pool = [settings.pool]
        profiles = {
            "default": Profile(plan.name, "default", default, project, where, in_network, pool)
        }
        for name, declared in plan.profiles.items():
            desired = desired_profile(declared)
            profiles[name] = Profile(plan.name, name, desired, project, where, mine)
        after_profile = pulumi.ResourceOptions(
            parent=self, depends_on=[project, profiles["default"].object]
        )
        needed = {name for machine in plan.machines for name in volumes_of(machine)}
        volumes = {
            # After the profile: with another pool, that has the machines deleted first.
            name: Volume(plan.name, name, settings, plan.domain.formerly, after_profile)
            for name in sorted(needed)
        }
        self.roles: dict[str, Role] = {}
        for machine in plan.machines:
            mounts = volumes_of(machine)
            instance = Instance(
                machine,
                settings.image,
                desired_instance(
                    machine, mounts, devices_of(machine, settings), plan.bridge, settings.pool
                ),
                [project, profiles["default"].object, *(volumes[name].object for name in mounts)],
                [network, *(profiles[name].object for name in machine.machine.profiles)],
                where,
                mine,
            )
            context = Context(declaration, machine, instance, shared)
            needs: list[pulumi.Resource] = []
            for name in machine.roles:
                if ROLES[name].wanted(settings):
                    role = ROLES[name](context, needs, pulumi.ResourceOptions(parent=instance))
                    self.roles.setdefault(name, role)
                    if name == "base_system":
                        needs = [role.ready]
        for role in self.roles.values():
            role.verify(self.roles)
        self.register_outputs({})
