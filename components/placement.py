"""Where the machines of each domain are in a cluster of Incus: on one member, all of them.

A bridge of Incus does not reach from one member to another, so the domain is what is placed; one
that is on several members is so many domains here (``declaration.members``). Once chosen, a member
stays: `up` goes by what the state has noted.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from ipaddress import ip_interface
from typing import Any

from components.cards import cards_of
from components.members import Placement
from declaration.policy import within
from declaration.problems import Problem, show, suggest
from declaration.topology import DomainPlan, Topology
from declaration.urls import is_loopback
from gpu.devices import select_cards
from host.cluster import member_of
from host.read import Live, Member
from stack.declare import Declaration
from stack.gateway import server_problems
from stack.published import Hosts, port_conflicts, publishing

#: What the state has of a resource; None if it has nothing.
Outputs = Callable[[str], Mapping[str, Any] | None]


def noted_member(plan: DomainPlan, outputs: Outputs) -> str:
    """The member that the state has of a domain's machines; empty if it has none."""
    for machine in plan.machines:
        try:
            noted = json.loads((outputs(machine.resource("instance")) or {}).get("stdin") or "{}")
        except ValueError:
            continue
        if member := noted.get("member"):
            return str(member)
    return ""


def place(
    declaration: Declaration, live: Live | None, outputs: Outputs, problems: list[Problem]
) -> Placement:
    """Where each domain is, or is to be; what is wrong goes to ``problems``.

    Where the host was not read, it is where the state has it.
    """
    topology, file = declaration.topology, declaration.settings.infra
    noted = {plan.name: noted_member(plan, outputs) for plan in topology.domains}
    known = {domain: member for domain, member in noted.items() if member}
    if live is None:
        return Placement(known)
    if not live.members:
        problems += _without_cluster(declaration)
        return Placement(former=known)
    offline = next((each for each in live.members.values() if each.status == "Offline"), None)
    if offline:
        problems += _new_networks(declaration, live, offline)
    members: dict[str, str] = {}
    left: dict[str, Member] = {}
    load = Counter(
        member_of(found) for (kind, _, _), found in live.objects.items() if kind == "instance"
    )
    for plan in topology.domains:
        if not plan.machines:
            continue
        chosen = _choose(plan, live, noted[plan.name], load)
        if isinstance(chosen, str):
            problems.append(Problem(f"{file}: {_where(plan)}", chosen))
            continue
        members[plan.name] = chosen.name
        load[chosen.name] += len(plan.machines)
        if not chosen.online:
            left[plan.name] = chosen
            problems += _not_made(plan, chosen, live, outputs, file)
    closed = [each.name for each in topology.domains if each.way_out and each.name not in left]
    return Placement(members, left, offline=offline, closed=closed if offline else [])


def _where(plan: DomainPlan) -> str:
    """The place in the file that says where a domain is."""
    if plan.domain.member and not plan.part_of:
        return f"{plan.place}.member"
    for machine in plan.machines:
        if machine.machine.member:
            return f"{machine.place}.member"
    return plan.place


def _choose(plan: DomainPlan, live: Live, noted: str, load: Counter[str]) -> Member | str:
    """The member of a domain, or what is wrong.

    Where more than one would do: the one that has it already, else that with the fewest instances,
    as Incus itself chooses, of those that are online and have the cards. Who names none may not
    know that the host is in a cluster: its services would be reached from another host than the
    one that was meant.
    """
    declared, every = plan.member, live.members
    if declared and not declared.startswith("@"):
        if declared in every:
            return every[declared]
        hint = suggest(declared, every)
        return f"{show(declared)} is not a member of the cluster.{hint} There are: {_list(every)}."
    group = declared.removeprefix("@")
    fit = {name: each for name, each in every.items() if not group or group in each.groups}
    if not fit:
        groups = sorted({f"@{name}" for each in every.values() for name in each.groups})
        return (
            f"{show(declared)} is a group without members, or is not a group of the cluster."
            f"{suggest(declared, groups)} Groups with members: {', '.join(groups)}. Give it one: "
            "incus cluster group assign MEMBER default,GROUP"
        )
    for name in (noted, *_there(plan, live)):
        if name in fit:
            return fit[name]
    if not declared and len(every) > 1:
        return (
            f"{plan.name} names no member, and this host is in a cluster: {_list(every)}. Say "
            f"where it is to be, with member: {live.answers} on one of its machines for the one "
            'that stt:connection leads to, or member: "@default" for any.'
        )
    online = [each for each in fit.values() if each.online]
    if not online:
        which = f"the members of {show(declared)}" if declared else "the members of the cluster"
        return f"none of {which} is online: {_list(fit)}. Start one; see incus cluster list."
    able = [each for each in online if _has_cards(live, each, plan)] or online
    return min(able, key=lambda each: (load[each.name], each.name))


def _has_cards(live: Live, member: Member, plan: DomainPlan) -> bool:
    """Whether a member has a card for each machine that is to have one."""
    cards = cards_of(live, member.name)
    wanted = [each for each in plan.machines if each.machine.gpu]
    return all(select_cards(each.gpus, cards) for each in wanted)


def _there(plan: DomainPlan, live: Live) -> Iterator[str]:
    """The members that have something of a domain: machines first, then volumes that it kept."""
    for wanted in ("instance", "volume"):
        for (kind, project, _), found in live.objects.items():
            if kind == wanted and project == plan.name:
                yield member_of(found)


def _not_made(
    plan: DomainPlan, member: Member, live: Live, outputs: Outputs, file: str
) -> list[Problem]:
    """Machines that are to be made on a member that is not online."""
    online = [each.name for each in live.members.values() if each.online]
    return [
        Problem(
            f"{file}: {machine.place}",
            f"{machine.name} is to be made on {member.name}, which is {member.condition}. "
            f"{member.way_back} Or name another member; online are: {', '.join(online)}.",
        )
        for machine in plan.machines
        if None in (outputs(machine.resource("instance")), outputs(machine.resource("agent")))
    ]


def _new_networks(declaration: Declaration, live: Live, away: Member) -> list[Problem]:
    """Bridges that are to be made while a member is ``away``, which Incus refuses."""
    return [
        Problem(
            plan.place,
            f"its bridge {plan.bridge} is to be made on every member of the cluster, "
            f"and {away.name} is offline. {away.way_back} Or take it out of the cluster "
            f"for good: incus cluster remove --force {away.name}",
        )
        for plan in declaration.topology.domains
        if plan.bridge not in live.networks
    ]


def _without_cluster(declaration: Declaration) -> list[Problem]:
    topology = declaration.topology
    named = {
        f"{each.place}.member": each.domain.member for each in topology.domains if not each.part_of
    }
    named |= {f"{each.place}.member": each.machine.member for each in topology.machines}
    return [
        Problem(
            f"{declaration.settings.infra}: {place}",
            f"{show(member)} is for a cluster of Incus, and this host is in none. "
            "Remove it, or name a host of the cluster with stt:connection.",
        )
        for place, member in named.items()
        if member
    ]


def _list(members: Mapping[str, Member]) -> str:
    """Members, with their status where they are not online."""
    return ", ".join(
        each.name if each.online else f"{each.name} ({each.condition})" for each in members.values()
    )


def unreachable(declaration: Declaration, placement: Placement) -> list[Problem]:
    """Rules of ``policy:`` between domains on two members: no way leads from one to the other.

    Where a domain has several parts, a rule is good that leads somewhere.
    """
    topology = declaration.topology
    rules: dict[str, list[Problem | None]] = {}
    for flow in topology.policy:
        ends = [_domain_of(each, declaration) for each in (flow.sources, flow.destinations)]
        source, destination = (placement.of(end) for end in ends)
        rule = flow.why.partition(":")[0]
        found: Problem | None = None
        if source and destination and source != destination:
            found = Problem(
                f"{declaration.settings.infra}: {rule}",
                f"{ends[0]} is on {source} and {ends[1]} on {destination}, and a bridge does "
                f"not reach from one member to another. {_instead(topology, *ends)}",
            )
        rules.setdefault(rule, []).append(found)
    return [each for found in rules.values() if all(found) for each in found if each]


def _instead(topology: Topology, source: str, destination: str) -> str:
    """What to do where a rule leads from one member to another."""
    parts = [each.name for each in topology.parts_of(source)]
    if destination in parts:
        return (
            "What one part of a domain uses of another is published and let in without a rule: "
            "remove it. For anything else name the address of a proxy device: see docs/scale.md."
        )
    same = "Give both the same member"
    if any(len(topology.parts_of(end)) > 1 for end in (source, destination)):
        same = "Name what is on the same member"
    return f"{same}, or have the service published and name its address: see docs/scale.md."


def _domain_of(ends: Sequence[str], declaration: Declaration) -> str:
    """The domain that an end of a rule is of; empty if it is of none."""
    every = declaration.topology.domains
    return next((each.name for each in every if within(ends, each)), "")


def _not_its_address(
    declaration: Declaration, live: Live, addresses: Sequence[str]
) -> list[Problem]:
    """An address in ``global.members`` that its member does not have; ``addresses``: what it has.

    That is known of the member that answers only, and not through a remote. Incus accepts it, and
    nobody would get there.
    """
    topology = declaration.topology
    address = topology.members.get(live.answers)
    if not topology.links or not addresses or address is None or str(address) in addresses:
        return []
    place = f"{declaration.settings.infra}: global.members.{live.answers}"
    has = ", ".join(each for each in addresses if not is_loopback(each))
    message = (
        f"{address} is not an address of {live.answers}, and other members would ask there. It has "
        f"{has}; incus cluster list shows the one for other members."
    )
    return [Problem(place, message)]


def published_wrongly(declaration: Declaration, live: Live, placement: Placement) -> list[Problem]:
    """What is published where it cannot be, and servers that are the gateway or asked anyway.

    That is a port that two machines of one host want, or an address that a member does not have.
    The file was checked; the host tells which member each domain is on, and its addresses.
    """
    settings, topology = declaration.settings, declaration.topology
    # Of a domain without a place, what is wrong is said already.
    of = {
        plan.name: placement.members.get(plan.name, f"@{plan.name}") if live.members else ""
        for plan in topology.domains
    }
    every = [str(ip_interface(each).ip) for found in live.addresses.values() for each in found]
    hosts = Hosts(of, {live.answers: every})
    return [
        *_not_its_address(declaration, live, every),
        *port_conflicts(settings, topology, hosts, settings.infra),
        *server_problems(settings, topology, publishing(topology, hosts)),
    ]


def double_addresses(declaration: Declaration, live: Live) -> list[Problem]:
    """Instances of others with an address that a machine is to have: a cluster accepts that."""
    if not live.members:
        return []
    problems: list[Problem] = []
    for plan in declaration.topology.domains:
        wanted = {str(machine.address): machine for machine in plan.machines}
        for (kind, project, name), found in live.objects.items():
            if kind != "instance" or project == plan.name:
                continue
            # A profile may have its NIC.
            devices = found.get("expanded_devices") or found.get("devices") or {}
            for device in devices.values():
                machine = wanted.get(device.get("ipv4.address", ""))
                if machine and device.get("network") == plan.bridge:
                    problems.append(
                        Problem(
                            f"{declaration.settings.infra}: {machine.place}",
                            f"its address {machine.address} is that of {name} (project {project}, "
                            f"on {member_of(found)}) too, which Incus accepts between members of a "
                            f"cluster. Give {machine.name} another ip:, or {name}.",
                        )
                    )
    return problems
