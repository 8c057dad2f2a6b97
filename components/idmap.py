"""Machines' users on the host: whether there is room for them, and what a change of them does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from components.members import Placement
from declaration.idmap import ISOLATED, USERS, is_isolated, room
from declaration.problems import Problem
from declaration.topology import MachinePlan
from host.cluster import member_of
from host.objects import INSTANCE, SHIFTED, VOLUME
from host.read import Live
from roles import ROLES
from stack.declare import Declaration

#: Incus' key for the first user of an isolated machine.
_BASE = "volatile.idmap.base"


def obstacles(
    declaration: Declaration,
    live: Live,
    placement: Placement = Placement(),  # noqa: B008  # it cannot be changed
) -> list[Problem]:
    """Too few numbers of users on the host for every machine to have its own.

    Of a cluster only the numbers of the member that answers are known.
    """
    every = declaration.topology.machines
    machines = [each for each in every if live.is_of(placement.of(each.domain))]
    wanted = [plan for plan in machines if plan.isolated]
    free = room(live.user_ids)
    ours = {(plan.domain, plan.name) for plan in machines}
    others = [
        name
        for (kind, project, name), found in live.objects.items()
        if kind == INSTANCE.name and (project, name) not in ours and _is_isolated(found)
        if live.is_of(member_of(found))
    ]
    if free is None or not wanted or len(wanted) + len(others) <= free:
        return []
    beside = f" beside {len(others)} of others" if others else ""
    return [
        Problem(
            "stt:infra",
            f"{len(wanted)} machines are to have users of their own on the host, 65536 each, and "
            f"root's ranges in its /etc/subuid and /etc/subgid have room for {free}{beside}. Give "
            "root more in both files (root:1000000:1000000000 is usual) and restart Incus; or give "
            f'machines config: {{{ISOLATED}: "false"}}. See docs/security.md.',
        )
    ]


def shifted_volumes(machine: MachinePlan) -> set[str]:
    """Volumes whose owners Incus translates: they are the same whatever users the machine has.

    So several machines may have them, and another machine finds an old snapshot as it was.
    """
    roles = [ROLES[role] for role in machine.roles if machine.isolated]
    return {name for role in roles for name in (*role.volumes, *role.caches)}


def warnings(declaration: Declaration, live: Live) -> list[str]:
    """The machines that restart because their users on the host are to be others."""
    found: list[str] = []
    users = _users(live)
    for plan in declaration.topology.machines:
        actual = live.find(INSTANCE.name, plan.name, plan.domain) or {}
        found += _twins(plan, users)
        if actual.get("status") != "Running":
            continue
        why, more = "", ""
        if _is_isolated(actual) != plan.isolated:
            who = "users of its own" if plan.isolated else "the users of other containers"
            why, more = f"it gets {who} on the host ({ISOLATED})", _disks(plan)
        elif volumes := _not_shifted(plan, live):
            why = f"the owners of {', '.join(volumes)} are to be translated for it ({SHIFTED})"
        if why:
            away = "Its services are down for some seconds."
            found.append(f"{plan.full_name} restarts: {why}. {away}{more}")
    return found


@dataclass(frozen=True)
class _Users:
    """The host and the first user of each isolated machine, by project and name.

    The host is a member of a cluster; empty: there is no cluster.
    """

    bases: Mapping[tuple[str, str], tuple[str, int]]
    #: Those that more than one machine has.
    shared: Collection[tuple[str, int]]


def _users(live: Live) -> _Users:
    bases = {
        (project, name): (member_of(found), int(base))
        for (kind, project, name), found in live.objects.items()
        if kind == INSTANCE.name and _is_isolated(found)
        if (base := (found.get("config") or {}).get(_BASE))
    }
    return _Users(bases, {base for base, count in Counter(bases.values()).items() if count > 1})


def _twins(plan: MachinePlan, users: _Users) -> list[str]:
    """Another machine with the same users: some versions of Incus 6.0 overlook one of its name."""
    own = (plan.domain, plan.name)
    place = users.bases.get(own)
    if place is None or place not in users.shared or not plan.isolated:
        return []
    others = ["/".join(each) for each in users.bases if users.bases[each] == place and each != own]
    free = max(base for host, base in users.bases.values() if host == place[0]) + USERS
    return [
        f"{plan.full_name} and {', '.join(others)} have the same users on the host. Give one of "
        f'them others with config: {{security.idmap.base: "{free}"}} in the topology.'
    ]


def _is_isolated(found: Mapping[str, Any]) -> bool:
    return is_isolated(found.get("expanded_config") or {}, default=False)


def _not_shifted(plan: MachinePlan, live: Live) -> list[str]:
    """The volumes for whose translation a machine has to be stopped."""
    there = {name: live.find(VOLUME.name, name, plan.domain) for name in shifted_volumes(plan)}
    return sorted(name for name, each in there.items() if each and not _is_shifted(each))


def _is_shifted(volume: Mapping[str, Any]) -> bool:
    return bool((volume.get("config") or {}).get(SHIFTED) == "true")


def _disks(plan: MachinePlan) -> str:
    """What becomes of the host's directories that a machine has."""
    kept = [
        name
        for name, device in plan.machine.devices.items()
        if device.get("type") == "disk"
        and device.get("source", "").startswith("/")
        and device.get("shift") != "true"
    ]
    if not kept:
        return ""
    return (
        f" Files of the host in its devices {', '.join(kept)} keep their owners, and in it "
        "they belong to nobody: give the devices shift: true (docs/security.md)."
    )
