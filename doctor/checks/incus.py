"""Incus: client, daemon, version, certificate, cluster, storage."""

from __future__ import annotations

import re
from collections.abc import Iterator

from agent.certificate import not_after
from doctor.case import Case
from doctor.check import check
from doctor.finding import Finding, broken, doubtful, good
from doctor.room import lasts, room

#: The oldest Incus that this project is tested with.
OLDEST = (6, 0)


@check
def incus(case: Case) -> Iterator[Finding]:
    """Whether Incus is there, answers, and is new enough."""
    client, server = case.answer("client"), case.answer("server")
    if not client.there:
        if case.connection.kind == "local":
            yield doubtful("Incus", "not installed", f"{case.make('up')} installs it")
        else:
            yield broken("Incus", "that host has no incus client", "install Incus on that host")
        return
    if case.server is None:
        todo = f"{case.make('up')} starts it, or says why not; its log: journalctl -u incus"
        if case.over_ssh:
            todo = f"ssh {case.connection.target} systemctl start incus"
        yield broken("Incus", f"the daemon does not answer: {server.last}", todo)
        return
    version = str((case.server.get("environment") or {}).get("server_version", ""))
    if (number := _number(version)) and number < OLDEST:
        least = ".".join(map(str, OLDEST))
        yield broken("Incus", f"{version} is too old", f"install Incus {least} or later")
    else:
        yield good("Incus", f"{version} answers")


def _number(version: str) -> tuple[int, int] | None:
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else None


@check
def certificate(case: Case) -> Iterator[Finding]:
    """How long the daemon's certificate lasts, which clients of remotes and clusters check."""
    pem = str(((case.server or {}).get("environment") or {}).get("certificate") or "")
    if not pem:
        return
    try:
        end = not_after(pem)
    except ValueError as error:
        yield doubtful("Incus certificate", str(error), "see incus info")
        return
    yield lasts(
        "Incus certificate",
        "the daemon's certificate",
        end,
        case.facts.ended,
        "on the host: remove /var/lib/incus/server.crt and server.key, restart Incus, and add it "
        "again if it is a remote (of a cluster: incus cluster update-certificate)",
    )


@check
def cluster(case: Case) -> Iterator[Finding]:
    """Whether every member of a cluster answers."""
    if case.server is None:
        return
    if not (case.server.get("environment") or {}).get("server_clustered"):
        yield good("cluster", "none: one host")
        return
    states = case.members
    away = [f"{name} ({state})" for name, state in states.items() if state != "Online"]
    if not states:
        yield doubtful("cluster", "its members cannot be listed", "see incus cluster list")
    elif [state for state in states.values() if state not in ("Online", "Evacuated")]:
        yield broken(
            "cluster", f"not there: {', '.join(away)}", "start them; see incus cluster list"
        )
    elif away:
        yield doubtful(
            "cluster", f"taken out: {', '.join(away)}", "incus cluster restore brings one back"
        )
    else:
        yield good("cluster", f"{len(states)} members online: {', '.join(states)}")


@check
def storage(case: Case) -> Iterator[Finding]:
    """Whether the stack's storage pool is there, with room."""
    if case.server is None:
        return
    pool = case.declaration.settings.pool
    pools = {str(each["name"]): each for each in case.answer("pools").json or []}
    if pool not in pools:
        if pools:
            known = ", ".join(pools)
            yield broken(
                "storage",
                f"the host has no pool {pool}. There are: {known}",
                f"set stt:pool to one of them, or make it: incus storage create {pool} dir",
            )
        elif case.connection.kind == "local":
            yield doubtful("storage", f"no pool {pool} yet", f"{case.make('up')} makes it")
        else:
            make = f"{case.incus} storage create {pool} dir"
            yield broken("storage", f"the host has no pool {pool}", make)
        return
    if (status := pools[pool].get("status", "Created")) != "Created":
        yield broken("storage", f"pool {pool}: {status}", f"see incus storage info {pool}")
        return
    space = (case.answer("pool").json or {}).get("space") or {}
    if not space.get("total"):
        yield good("storage", f"pool {pool} ({pools[pool]['driver']}); its size is not known")
        return
    nodes = (case.answer("pool").json or {}).get("inodes") or {}
    share = 1 - nodes.get("used", 0) / nodes["total"] if nodes.get("total") else 1.0
    yield room(
        "storage",
        f"pool {pool} ({pools[pool]['driver']})",
        space["total"] - space.get("used", 0),
        space["total"],
        share,
        case.enough,
        f"make room: incus storage info {pool}; incus image list; or another pool (stt:pool)",
    )
