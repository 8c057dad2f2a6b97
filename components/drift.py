"""What pulumi-command cannot see: where the host differs from what is desired, field by field.

Each difference goes into its Command's ``environment`` as ``DRIFT``: the preview shows it, and `up`
runs the Command's script, which restores the desired state. Where nothing differs the Command
ignores its environment, so that the DRIFT of an earlier `up` stays in the state and does nothing.
"""

from __future__ import annotations

import os
from base64 import b64decode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pulumi

from components.domain import desired_project, devices_of, volumes_of
from components.facts import Fact
from components.incus_object import NETWORK, PROFILE, PROJECT, VOLUME
from components.instance import FILLS, desired_instance
from components.live import Live
from components.network import desired_network
from components.profile import desired_default_profile, desired_profile
from components.roles import ROLES
from components.volume import DESIRED_VOLUME
from declaration.difference import Difference, compare_object, compare_text, missing
from declaration.topology import DomainPlan, MachinePlan, Topology
from stack.declare import Declaration

Differences = dict[str, list[Difference]]
COMMAND = "command:local:Command"


def machine_facts(declaration: Declaration, machine: MachinePlan) -> dict[str, list[Fact]]:
    """What to ask in a machine, by the names of the resources that answer for it."""
    facts: dict[str, list[Fact]] = {}
    for name in machine.roles:
        if ROLES[name].wanted(declaration.settings):
            facts |= ROLES[name].facts(declaration, machine)
    return facts


def all_facts(declaration: Declaration) -> dict[tuple[str, str], list[Fact]]:
    """What to ask in every machine, by domain and name."""
    return {
        (machine.domain, machine.name): [
            fact for facts in machine_facts(declaration, machine).values() for fact in facts
        ]
        for plan in declaration.topology.domains
        for machine in plan.machines
    }


def differences(declaration: Declaration, live: Live) -> Differences:
    """Where the host is not as declared, by the name of the resource that restores it."""
    found: Differences = {}
    for plan in declaration.topology.domains:
        found |= _objects(declaration, plan, live)
        for machine in plan.machines:
            found |= _machine(declaration, plan, machine, live)
    return {name: fields for name, fields in found.items() if fields}


def _objects(declaration: Declaration, plan: DomainPlan, live: Live) -> Differences:
    """The differences of a domain's project, bridge, profiles and volumes."""
    settings = declaration.settings
    name, pool = plan.name, settings.pool
    wanted = {
        f"{name}/project": (PROJECT, name, desired_project(plan)),
        f"{name}/network": (NETWORK, plan.bridge, desired_network(plan)),
        f"{name}/profile/default": (
            PROFILE,
            "default",
            desired_default_profile(plan.bridge, pool),
        ),
    }
    for profile, declared in plan.profiles.items():
        wanted[f"{name}/profile/{profile}"] = (PROFILE, profile, desired_profile(declared))
    for machine in plan.machines:
        for volume in volumes_of(machine):
            wanted[f"{name}/volume/{volume}"] = (VOLUME, volume, DESIRED_VOLUME)
    found: Differences = {}
    for resource, (noun, called, desired) in wanted.items():
        actual = live.find(noun.name, called, "default" if noun is NETWORK else name)
        found[resource] = (
            [missing(f"{noun.name} {called}")]
            if actual is None
            else compare_object(desired, actual, noun.fills)
        )
    return found


def _machine(
    declaration: Declaration, plan: DomainPlan, machine: MachinePlan, live: Live
) -> Differences:
    """The differences of a container, and of all that is in it."""
    settings = declaration.settings
    mounts = volumes_of(machine)
    devices = devices_of(machine, settings)
    desired = desired_instance(machine, mounts, devices, plan.bridge, settings.pool)
    instance = machine.resource("instance")
    facts = machine_facts(declaration, machine)
    actual = live.find("instance", machine.name, plan.name)
    if actual is None:
        gone = [missing(f"machine {machine.name}")]
        return {instance: gone, **dict.fromkeys(facts, gone)}
    found = {
        instance: compare_object({**desired, "status": "Running"}, actual, FILLS),
    }
    if actual["status"] != "Running":
        stopped = [Difference(f"machine {machine.name}", str(actual["status"]), "Running")]
        return found | dict.fromkeys(facts, stopped)
    answers = live.answers.get((plan.name, machine.name))
    if answers is None:
        pulumi.log.warn(
            f"The machine {machine.name} did not answer: what is in it was not checked. "
            f"See: incus exec {machine.name} --project {plan.name} -- systemctl status"
        )
        return found
    return found | compare_facts(facts, answers)


def compare_facts(facts: Mapping[str, Sequence[Fact]], answers: Sequence[str]) -> Differences:
    """The differences of facts; ``answers`` are theirs, in the same order, in base64.

    What a service starts from (its program, its model) is restored under it, so it starts again.
    """
    found: Differences = {}
    left = iter(answers)
    for resource, asked in facts.items():
        found[resource] = []
        for fact in asked:
            said, wanted = b64decode(next(left)).decode(errors="replace"), fact.wanted
            if "\n" not in wanted:
                said = said.removesuffix("\n")
            found[resource] += compare_text(fact.field, wanted, said)
    for resource in facts:
        prefix, _, part = resource.rpartition("/")
        if part != "configure" or found[resource]:
            continue
        under = [
            name
            for name in facts
            if name.startswith(f"{prefix}/") and found[name] and not name.endswith("/secrets")
        ]
        if under:
            restored = ", ".join(name.rpartition("/")[2] for name in under)
            found[resource] = [Difference(f"started before {restored}", "yes", "no")]
    return found


def report(differences: Mapping[str, Sequence[Difference]]) -> None:
    """Write them into the file that ``STT_DRIFT_REPORT`` names, if any, for `make drift`."""
    if file := os.environ.get("STT_DRIFT_REPORT"):
        lines = [f"{name}: {each}\n" for name, fields in differences.items() for each in fields]
        Path(file).write_text("".join(lines), encoding="utf-8")


def mark(differences: Mapping[str, Sequence[Difference]], topology: Topology) -> None:
    """Let every Command registered from now on carry its differences, and its former name."""
    now = datetime.now(UTC).isoformat(timespec="seconds")

    def transform(
        args: pulumi.ResourceTransformationArgs,
    ) -> pulumi.ResourceTransformationResult | None:
        if args.type_ != COMMAND:
            return None
        props, more = args.props, pulumi.ResourceOptions()
        if fields := differences.get(args.name):
            drift = "\n".join([*map(str, fields), f"@{now}"])
            props = {**props, "environment": {"DRIFT": drift}}
        else:
            more.ignore_changes = ["environment"]
        if (former := topology.former_name(args.name)) != args.name:
            more.aliases = [pulumi.Alias(name=former)]
        return pulumi.ResourceTransformationResult(
            props, pulumi.ResourceOptions.merge(args.opts, more)
        )

    pulumi.runtime.register_stack_transformation(transform)
