"""What on the host stands in the way of a declaration."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, ip_interface
from typing import Any

from components.command import Host
from declaration.problems import Problem, show
from declaration.topology import DomainPlan, MachinePlan, Topology
from host.objects import (
    ACL,
    INSTANCE,
    MARK,
    NETWORK,
    PROFILE,
    PROJECT,
    VOLUME,
    ObjectType,
    has_other_owner,
    owner_of,
    split_owner,
)
from host.read import Live
from roles import ROLES
from stack.declare import Declaration


def obstacles(declaration: Declaration, live: Live) -> list[Problem]:
    """What on the host stands in the way of the declaration."""
    settings, topology = declaration.settings, declaration.topology
    problems: list[Problem] = []
    if settings.pool not in live.pools:
        known = ", ".join(live.pools) or "none yet: `make up` makes one"
        problems.append(
            Problem(
                "stt:pool",
                f"{show(settings.pool)} is not a storage pool of the host. There are: {known}.",
            )
        )
    for plan in topology.domains:
        problems += [
            *_taken(plan, live, settings.adopt),
            *_of_the_host(plan, live),
            *_strangers(plan, live, topology),
        ]
    return problems


def _taken(plan: DomainPlan, live: Live, adopt: bool) -> list[Problem]:
    """Names and addresses of a domain that belong to somebody else."""
    problems: list[Problem] = []
    mark, value = next(iter(MARK.items()))
    for kind, name, existing in (
        ("project", plan.name, live.projects),
        ("network", plan.bridge, live.networks),
    ):
        if name in existing and existing[name].get(mark) != value and not adopt:
            problems.append(
                Problem(
                    plan.place,
                    f"the host has a {kind} {name} that incus-stt did not make; it is left alone. "
                    f"Rename the domain, remove that {kind}, or set stt:adopt to true to take it "
                    "over: `make drift` shows what that changes.",
                )
            )
    if plan.bridge in live.interfaces:
        problems.append(
            Problem(
                plan.place,
                f"the host has a network interface {plan.bridge} that Incus does not manage. "
                f"Rename the domain, or remove it on the host: ip link delete {plan.bridge}",
            )
        )
    for name, config in live.networks.items():
        address = config.get("ipv4.address", "none")
        if name == plan.bridge or address in ("none", "auto", ""):
            continue
        if name == plan.former_bridge:
            continue
        if ip_interface(address).network.overlaps(plan.subnet):
            ours = config.get(mark) == value
            former = name.removeprefix(plan.bridge.removesuffix(plan.written))
            renamed = " If this domain got a new name, say so with "
            told = ours and former != name and not plan.part_of
            renamed = f"{renamed}formerly: {former}." if told else ""
            problems.append(
                Problem(
                    plan.place,
                    f"its subnet {plan.subnet} is taken by the network {name} ({address}). "
                    f"{_other_subnet(plan)}{renamed}",
                )
            )
    return problems


def _other_subnet(plan: DomainPlan) -> str:
    """What to do where a subnet is somebody else's."""
    if plan.part_of:  # no key names it
        own = f"It is that of the part {plan.written}"
        return f"{own}: change global.addressing, or what has it there."
    return "Give the domain another one with subnet:, or change global.addressing."


def _of_the_host(plan: DomainPlan, live: Live) -> list[Problem]:
    """Addresses that the host has on another interface: what is there would be out of its reach.

    A bridge that is there already stays: its host may have joined such a network later on.
    """
    there = live.networks.get(plan.bridge, {}).get("ipv4.address", "")
    if there == f"{plan.gateway}/{plan.subnet.prefixlen}":
        return []
    told = {  # above
        name
        for name, config in live.networks.items()
        if config.get("ipv4.address", "") not in ("none", "auto", "")
    }
    ours = {plan.bridge, plan.former_bridge, *told}
    return [
        Problem(
            plan.place,
            f"its subnet {plan.subnet} is in use on the host's interface {name} ({address}). "
            f"{_other_subnet(plan)}",
        )
        for name, addresses in live.addresses.items()
        for address in addresses
        if name not in ours and ip_interface(address).network.overlaps(plan.subnet)
    ]


def _strangers(plan: DomainPlan, live: Live, topology: Topology) -> list[Problem]:
    """Machines that leave, or are no longer declared, and have an address that is needed."""
    known = {name for each in plan.machines for name in (each.name, each.machine.formerly)}
    parts = [each for each in topology.parts_of(plan.name) if each is not plan]
    moved = {each.name: part.name for part in parts for each in part.machines}
    problems: list[Problem] = []
    for (kind, project, name), found in live.objects.items():
        if kind != "instance" or project != plan.name or name in known:
            continue
        address = _address(found)
        for machine in plan.machines:
            if str(machine.address) != address:
                continue
            message = (
                f"its address {address} is that of {name}, a machine that is no longer declared. "
                f"If {machine.name} is its new name, say so with formerly: {name}. Otherwise let "
                f"one `make up` remove {name} first, or give {machine.name} another ip:."
            )
            if name in moved:
                message = (
                    f"its address {address} is still that of {name}, which this `make up` makes "
                    f"anew in {moved[name]} and removes here last. {_kept(plan, machine, live)}"
                )
            problems.append(Problem(machine.place, message))
    return problems


def _kept(plan: DomainPlan, machine: MachinePlan, live: Live) -> str:
    """How the machines that stay in a domain keep their addresses."""
    # An ip: of a machine with count is about all of them.
    ips = {
        each.name: address
        for each in plan.machines
        if each.machine.count == 1
        and (found := live.objects.get(("instance", plan.name, each.name)))
        and (address := _address(found)) not in ("", str(each.address))
    }
    if machine.name not in ips:
        return f"Give {machine.name} another ip:."
    listed = ", ".join(
        f"{plan.environment.as_written(IPv4Address(address))} to {name}"
        for name, address in ips.items()
    )
    return f"Let those that stay keep theirs, with ip: {listed}."


def _address(instance: Mapping[str, Any]) -> str:
    """The address that Incus gives to an instance."""
    return str(instance.get("devices", {}).get("eth0", {}).get("ipv4.address", ""))


def other_owners(declaration: Declaration, host: Host) -> list[Problem]:
    """Objects and machines of another stack; ``stt:adopt`` takes them over."""
    if host.live is None or declaration.settings.adopt:
        return []
    problems: list[Problem] = []
    for plan in declaration.topology.domains:
        found: dict[str, list[str]] = {}
        member = host.placement.of(plan.name)
        for kind, project, name in _objects(plan):
            where = member if kind is VOLUME else ""
            actual = host.live.find(kind.name, name, project, where) or {}
            if has_other_owner(actual, host.known_owner):
                found.setdefault(owner_of(actual), []).append(f"the {kind.name} {name}")
        problems += [
            Problem(
                plan.place,
                f"{_said(owner)} owns {', '.join(names)}. Use that stack; or give this one an "
                "environment (stt:environment) or a topology file (stt:infra) of its own; or set "
                "stt:adopt to true to take them over: `make drift` shows what that changes.",
            )
            for owner, names in found.items()
        ]
    return problems


def _objects(plan: DomainPlan) -> list[tuple[ObjectType, str, str]]:
    """Type, project and name of what a domain has on the host."""
    return [
        (PROJECT, plan.name, plan.name),
        (ACL, "default", plan.bridge),
        (NETWORK, "default", plan.bridge),
        *((PROFILE, plan.name, name) for name in ("default", *plan.profiles)),
        *((VOLUME, plan.name, name) for name in _volumes(plan)),
        *((INSTANCE, plan.name, machine.name) for machine in plan.machines),
    ]


def _volumes(plan: DomainPlan) -> list[str]:
    roles = [ROLES[role] for machine in plan.machines for role in machine.roles]
    return sorted({name for role in roles for name in (*role.volumes, *role.caches)})


def _said(owner: str) -> str:
    project, stack, identity = split_owner(owner)
    return f"the stack {stack} of the project {project} (its id: {identity})"
