"""A domain: an Incus project with its bridge, profiles, volumes and machines."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pulumi

from components import objects
from components.agent import Agent
from components.command import Command, Host
from components.firewall import DnsRule, is_within_reach, name_of
from components.incus_object import CLOSED_FIRST, EXACT, AclRules, IncusObject
from components.unread import is_moving, is_unread, read_after, warn
from declaration.policy import Flow
from declaration.settings import Settings
from declaration.topology import DomainPlan, MachinePlan
from host.egress import SUFFIX
from host.objects import ACL, AI_SUFFIX, INSTANCE, NETWORK, PROFILE, PROJECT, VOLUME, Place
from stack.flows import Border


class Machine(pulumi.ComponentResource):
    """A container with its agent; the roles' steps are its children.

    ``way_out`` is the bridge where `up` opens it to install something; empty if it does not.
    ``late`` is what the agent says once `up` has started a machine that did not answer before, or
    has moved it.
    """

    def __init__(
        self,
        plan: MachinePlan,
        host: Host,
        settings: Settings,
        desired: Mapping[str, Any],
        within: list[IncusObject],
        needs: list[IncusObject],
        way_out: str,
        opts: pulumi.ResourceOptions,
    ) -> None:
        super().__init__("stt:incus:Machine", plan.full_name, None, opts)
        self.plan = plan
        self.instance = IncusObject(
            plan.resource("instance"),
            host,
            INSTANCE,
            Place(plan.name, plan.domain),
            desired,
            within=within,
            fixed=[settings.image],
            words=["--image", settings.image],
            opts=pulumi.ResourceOptions(parent=self, depends_on=[*within, *needs]),
        )
        unread, preview = is_unread(host, plan), pulumi.runtime.is_dry_run()
        if unread and preview:
            warn(plan)
        again = not preview and (unread or is_moving(host, plan))
        late = read_after(self.instance, host, plan) if again else None
        opts = pulumi.ResourceOptions(parent=self)
        self.agent = Agent(plan, host, self.instance, late, way_out, opts)
        self.way_out = way_out
        self.late = None if late is None else read_after(self.agent, host, plan, late)
        self.register_outputs({})


def _given(machine: MachinePlan) -> list[str]:
    """The sources of disks that the topology gives a machine: another one's volume among them."""
    devices = machine.machine.devices.values()
    return [each.get("source", "") for each in devices if each.get("type") == "disk"]


class Domain(pulumi.ComponentResource):
    """A domain's Incus objects. ``machines`` has every machine by its name.

    ``border`` is what may cross the bridge, and ``servers`` is what of it leads to DNS servers of
    the host. ``volumes`` and ``devices`` are what the roles of each
    machine bring, by its name; ``caches`` are the volumes that nobody wants to keep, ``data``
    those whose content nobody else has, and ``shifted`` those whose owners Incus translates.
    """

    def __init__(
        self,
        plan: DomainPlan,
        host: Host,
        settings: Settings,
        border: Border,
        servers: Sequence[Flow],
        volumes: Mapping[str, Mapping[str, str]],
        devices: Mapping[str, Mapping[str, Mapping[str, str]]],
        caches: Collection[str] = (),
        data: Collection[str] = (),
        shifted: Collection[str] = (),
    ) -> None:
        # Every child inherits it.
        guarded = pulumi.ResourceOptions(protect=settings.protect)
        super().__init__("stt:incus:Domain", plan.name, None, guarded)
        mine = pulumi.ResourceOptions(parent=self)
        project = IncusObject(
            f"{plan.name}/project",
            host,
            PROJECT,
            Place(plan.name),
            objects.project(plan),
            opts=pulumi.ResourceOptions(
                parent=self, depends_on=[host.kept_id] if host.kept_id else None
            ),
        )
        after = pulumi.ResourceOptions(parent=self, depends_on=[project])

        def acl(
            part: str, suffix: str, desired: Mapping[str, Any], words: Sequence[str] = ()
        ) -> IncusObject:
            place = Place(f"{plan.bridge}{suffix}", "default")
            return IncusObject(
                f"{plan.name}/{part}", host, ACL, place, desired, words=words, opts=after
            )

        self.acl = acl("acl", "", objects.acl(plan, border))
        acls = [self.acl]
        if plan.way_out:
            acls.append(acl("acl/install", SUFFIX, objects.install_acl(plan, border), EXACT))
        self.ai_acl: IncusObject | None = None
        if border.ai:
            desired = objects.ai_acl(plan, border)
            self.ai_acl = acl("acl/ai", AI_SUFFIX, desired, CLOSED_FIRST)
            acls.append(self.ai_acl)
        before: list[Command] = [*acls]
        if is_within_reach(host, plan.name) and not host.skips(name_of(plan.name)):
            before.append(DnsRule(plan, host, servers, after))
        after = pulumi.ResourceOptions(parent=self, depends_on=before)
        network = IncusObject(
            f"{plan.name}/network",
            host,
            NETWORK,
            Place(plan.bridge, "default"),
            objects.network(plan, border),
            opts=after,
        )
        profiles = self._profiles(plan, host, settings, project, network)
        # After the profile: with another pool, that has the machines deleted first.
        after = pulumi.ResourceOptions(parent=self, depends_on=[project, profiles["default"]])
        former = ["--former", plan.former] if plan.domain.formerly else []
        member = host.placement.of(plan.name)
        made = {
            name: IncusObject(
                f"{plan.name}/volume/{name}",
                host,
                VOLUME,
                Place(name, plan.name, settings.pool, member),
                objects.volume(settings.snapshots if name in data else None, name in shifted),
                # Its data moves with it to another name of the domain, or another storage pool.
                movable=True,
                keep=settings.keepModels and name not in caches,
                words=former,
                opts=after,
            )
            for name in sorted({name for each in volumes.values() for name in each})
            if not host.skips(f"{plan.name}/volume/{name}")
        }
        self.plan, self._host = plan, host
        self.machines: dict[str, Machine] = {}
        for machine in plan.machines:
            mounts = volumes[machine.name]
            desired = objects.instance(
                machine, mounts, devices[machine.name], plan.bridge, settings.pool, member
            )
            self.machines[machine.name] = Machine(
                machine,
                host,
                settings,
                desired,
                [project, profiles["default"]],
                # A machine gets another volume in place, as it gets another profile.
                [
                    *(network, *(profiles[name] for name in machine.machine.profiles)),
                    *(made[name] for name in (*mounts, *_given(machine)) if name in made),
                ],
                plan.way_out,
                mine,
            )
        self.register_outputs({})

    @property
    def closing(self) -> str:
        """The name of what ``close`` registers."""
        return f"{self.plan.name}/acl/closed"

    def close(self, commands: Sequence[Command]) -> Command:
        """Take away what the bridge let through before, once these are done."""
        mine = pulumi.ResourceOptions(parent=self)
        return AclRules(self.closing, self._host, "close", self.acl, commands, mine)

    def give_ai_access(self, acl: IncusObject, hand_over: Command) -> None:
        """Let in who has the AI access, once the services have forgotten who had it before."""
        name, mine = f"{self.plan.name}/acl/ai-opened", pulumi.ResourceOptions(parent=self)
        AclRules(name, self._host, "open", acl, [hand_over], mine)

    def _profiles(
        self,
        plan: DomainPlan,
        host: Host,
        settings: Settings,
        project: IncusObject,
        network: IncusObject,
    ) -> dict[str, IncusObject]:
        desired = {"default": objects.default_profile(plan.bridge, settings.pool)}
        desired |= {name: objects.profile(each) for name, each in plan.profiles.items()}
        return {
            name: IncusObject(
                f"{plan.name}/profile/{name}",
                host,
                PROFILE,
                Place(name, plan.name),
                state,
                within=[project],
                # Machines with a disk in one storage pool cannot get another.
                fixed=[settings.pool] if name == "default" else [],
                opts=pulumi.ResourceOptions(parent=self, depends_on=[network]),
            )
            for name, state in desired.items()
        }
