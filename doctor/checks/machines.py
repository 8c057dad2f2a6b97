"""Each machine: there, running, answering, finished; then its names, clock and room."""

from __future__ import annotations

from collections.abc import Iterator

from declaration.stack_file import PROJECT
from declaration.topology import MachinePlan
from doctor.case import Case
from doctor.check import check, machine_check
from doctor.checks.host import skew
from doctor.finding import Finding, broken, doubtful, good
from doctor.room import LATER_UP, room

#: Seconds that a machine's clock may be away from its host's.
_SKEW = 5


@check
def machines(case: Case) -> Iterator[Finding]:
    """Whether each machine is there, this stack's, runs, and its agent answers."""
    if case.server is None:
        return
    for plan in case.machines:
        yield _machine(case, plan)


def _machine(case: Case, plan: MachinePlan) -> Finding:
    name, found = plan.name, case.instance(plan)
    if found is None:
        if plan.full_name in case.built:
            return broken(name, "it was built, and is gone", f"{case.make('up')} makes it again")
        return doubtful(name, "not there yet", f"{case.make('up')} makes it")
    if owner := case.other_owner(found):
        project, stack, identity = owner
        whose = f"belongs to the stack {stack} of the project {project}"
        look = f"look at it as STACK={stack}"
        if (project, stack) == (PROJECT, case.stack):
            whose += f" with the id {identity}, which another checkout has built"
            look = f"this checkout's has the id {case.identity}: look at it there"
        return broken(name, whose, f"{look}; docs/troubleshooting.md, Another stack owns")
    if (away := case.members.get(str(found.get("location")), "Online")) != "Online":
        todo = f"bring {found['location']} back; see incus cluster list"
        return broken(name, f"its member {found['location']} is {away.lower()}", todo)
    if (state := str(found.get("status", "unknown"))) != "Running":
        start = f"{case.incus} start {name} --project {plan.domain}"
        return broken(name, f"does not run: {state.lower()}", f"{case.make('up')}, or: {start}")
    said = case.facts.machines.get(plan.full_name, "it was not asked")
    if not isinstance(said, str):
        return _finished(case, plan, f"runs, {plan.address}")
    up = case.make("up")
    if "not known. Known:" in said:
        return doubtful(name, "runs with the agent of another version", f"{up} brings this one's")
    if "No such file" in said or "can't open file" in said:
        return broken(name, "runs, and has no agent", f"{up} brings it")
    return broken(name, f"runs, and its agent does not answer: {said}", f"{up}; or restart it")


def _finished(case: Case, plan: MachinePlan, state: str) -> Finding:
    unfinished = case.examined(plan).get("unfinished") or []
    if not unfinished:
        return good(plan.name, state)
    return broken(
        plan.name,
        f"a run was cut off (or still works) at {', '.join(unfinished)}",
        f"{case.make('up')} finishes it, once no other run works",
    )


@machine_check
def names(case: Case, plan: MachinePlan) -> Iterator[Finding]:
    """Whether the machine looks up its neighbours, and what is outside."""
    said, subject = case.examined(plan), f"{plan.name} DNS"
    wanted = {
        name: str(each.address)
        for each in case.machines
        if (case.instance(each) or {}).get("status") == "Running"
        for name in case.names_of(plan, each)
    }
    found = {name: said.get("names", {}).get(name, []) for name in wanted}
    wrong = [
        f"{name} is {', '.join(found[name]) or 'not known'}, not {address}"
        for name, address in wanted.items()
        if address not in found[name]
    ]
    resolve = case.into(plan, "cat /etc/resolv.conf")
    outside = said.get("outside") or {}
    egress = next(each.domain.egress for each in case.domains if each.name == plan.domain)
    if wrong:
        todo = f"{case.make('drift')} names what was changed; see {resolve}"
        yield broken(subject, "; ".join(wrong), todo)
    elif egress != "open":
        known = f"knows {', '.join(wanted) or 'no neighbours'}"
        if outside and outside["reached"]:
            todo = (
                f"is something being installed? {case.make('drift')} says whether somebody did it"
            )
            yield doubtful(subject, f"{known}; the way out is open, with egress: {egress}", todo)
        else:
            yield good(subject, f"{known}; the way out is closed")
    elif outside and not outside["addresses"]:
        todo = f"check the host's own DNS: getent hosts {outside['name']}; then {resolve}"
        yield doubtful(subject, f"knows its domain, and not {outside['name']}", todo)
    elif outside and not outside["reached"]:
        yield doubtful(
            subject,
            f"{outside['name']} is known and does not answer: `up` may not download",
            "a firewall or a proxy? docs/troubleshooting.md, Machines have no network",
        )
    else:
        beyond = f" and {outside['name']}, which answers" if outside else ""
        yield good(subject, f"knows {', '.join(wanted) or 'no neighbours'}{beyond}")


@machine_check
def clock(case: Case, plan: MachinePlan) -> Iterator[Finding]:
    """Whether the machine's clock is its host's: only told where it is not.

    Where the host's is not this computer's, its own line says so.
    """
    facts, host = case.facts, case.answer("clock").text
    whose, shift = "this computer's", 0.0
    if host.isdigit():
        whose = "its host's"
        if skew(int(host), facts.began, facts.ended):
            shift = int(host) - facts.began
    time = case.examined(plan).get("time", facts.ended)
    away = skew(time, facts.began + shift, facts.ended + shift)
    if away > _SKEW:
        todo = case.into(plan, "date")
        yield broken(f"{plan.name} clock", f"{away:.0f} s away from {whose}", f"see {todo}")


@machine_check
def disks(case: Case, plan: MachinePlan) -> Iterator[Finding]:
    """Room in the machine."""
    todo = f"make room: {case.into(plan, 'du -xh /var /opt /srv')} | sort -h | tail"
    for each in case.examined(plan).get("disks", []):
        size, free = each["size"], each["free"]
        subject, path, inodes = f"{plan.name} disk", each["path"], each["inodes"]
        yield room(subject, path, free, size, inodes, LATER_UP, todo)
