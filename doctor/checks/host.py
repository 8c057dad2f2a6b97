"""The host itself: distribution, who may use Incus there, clock, disks."""

from __future__ import annotations

import re
from collections.abc import Iterator

from doctor.case import Case
from doctor.check import check
from doctor.finding import Finding, broken, doubtful, good
from doctor.room import room
from host import inotify

#: The oldest release of each distribution whose Incus `make up` installs (``bootstrap/incus.sh``).
OLDEST = {"debian": 12.0, "ubuntu": 24.04}
#: Seconds by which clocks may differ: TLS and OAuth begin to fail after minutes, logs after less.
_NEAR, _FAR = 5, 60
_DF = re.compile(r"^\S.*?\s(\d+)\s+\d+\s+(-?\d+)\s+(\d+)%\s+(/.*)$", re.MULTILINE)


@check
def system(case: Case) -> Iterator[Finding]:
    """Distribution and kernel."""
    if case.remote:
        yield doubtful(
            "host",
            f"Incus runs at {case.connection}: only that host's Incus API is checked. Not "
            "checked: system, clock, disks, NVIDIA driver and toolkit, firewall, routes",
            f"in a checkout on that host: {case.make('doctor')} with stt:connection local",
        )
        return
    said = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', case.answer("system").text, re.MULTILINE))
    name = said.get("PRETTY_NAME") or "an unknown system"
    found = f"{name}, kernel {case.answer('kernel').text or 'unknown'}"
    problem = unsupported(said.get("ID", ""), said.get("VERSION_ID", ""), name)
    if not problem or case.server:
        yield good("host", found)
    elif case.answer("client").there:
        yield doubtful("host", f"{found}: {problem}", "start Incus your system's way")
    else:
        yield broken("host", f"{found}: {problem}", "install Incus 6.0 or later your system's way")


def unsupported(identity: str, version: str, name: str) -> str:
    """Why `make up` cannot install Incus; empty: it can. A testing release has no version."""
    known = "Debian 12 or later and Ubuntu 24.04 or later have a package of Incus"
    if identity not in OLDEST:
        return f"{name} is neither Debian nor Ubuntu, so `make up` cannot install Incus"
    if re.fullmatch(r"\d+(\.\d+)?", version) and float(version) < OLDEST[identity]:
        return f"too old, {known}"
    return ""


@check
def access(case: Case) -> Iterator[Finding]:
    """Whether this user may use Incus, or install it."""
    user, groups = case.answer("user").text, case.answer("groups").text.split()
    server = case.answer("server")
    if case.remote:
        return
    if user == "0":
        yield good("access", "root")
    elif case.server:
        yield good("access", f"user {user} uses Incus")
    elif "permission" in server.text.lower():
        missing = "log in again, or run newgrp incus-admin"
        if "incus-admin" not in groups:
            missing = "sudo usermod -aG incus-admin $USER, then log in again"
        yield broken("access", f"user {user} may not use Incus ({server.last})", missing)
    else:
        yield doubtful(
            "access",
            f"user {user} is not root",
            f"{case.make('up')} prints what root has to run",
        )


@check
def clock(case: Case) -> Iterator[Finding]:
    """Whether the host's clock is right: synchronized, and that of this computer."""
    if case.remote:
        return
    said = case.answer("clock").text
    if not said.lstrip("-").isdigit():
        yield doubtful("clock", "the host does not tell the time", "see date on the host")
        return
    away = skew(int(said), case.facts.began, case.facts.ended)
    set_it = "sudo timedatectl set-ntp true"
    if away > _FAR:
        yield broken("clock", f"{away:.0f} s away from this computer's", set_it)
    elif away > _NEAR:
        yield doubtful("clock", f"{away:.0f} s away from this computer's", set_it)
    elif not case.answer("synchronized").worked:
        yield good("clock", "as this computer's; nothing tells whether it is synchronized")
    elif case.answer("synchronized").text.strip() == "yes":
        yield good("clock", "synchronized")
    else:
        yield doubtful("clock", "not synchronized with a time server", set_it)


def skew(time: float, began: float, ended: float) -> float:
    """How far a time is from the span in which it was read; s."""
    return max(0.0, began - time - 1, time - ended - 1)


@check
def containers(case: Case) -> Iterator[Finding]:
    """Whether the host's kernel has room for this stack's machines beside all others."""
    answer = case.answer("inotify")
    if not answer.worked:
        return
    running = {
        (each["project"], each["name"])
        for each in case.answer("instances").json or []
        if each["status"] == "Running" and each.get("type") != "virtual-machine"
        if case.is_on_host(each)
    }
    ours = {(plan.domain, plan.name) for plan in case.machines if case.is_here(plan)}
    limit, count = answer.text.strip(), len(running | ours)
    found = f"room for about {int(limit) // inotify.EACH} ({inotify.LIMIT}={limit}), with this"
    if inotify.too_few(limit, count):
        yield doubtful("containers", f"{found} stack {count}", f"as root: {inotify.RAISE}")
    else:
        yield good("containers", f"{found} stack {count}")


@check
def disks(case: Case) -> Iterator[Finding]:
    """Room where Incus and this checkout keep what they have."""
    inodes = {mount: 1 - int(used) / 100 for _, _, used, mount in _df(case, "inodes")}
    for size, free, _, mount in _df(case, "disks"):
        yield room(
            "disk",
            mount,
            int(free) * 1024,
            int(size) * 1024,
            inodes.get(mount, 1.0),
            case.enough,
            f"make room on the host: du -xh {mount} | sort -h | tail",
        )


def _df(case: Case, name: str) -> list[tuple[str, str, str, str]]:
    """Size, free, percent used and mount of each file system, once."""
    rows: dict[str, tuple[str, str, str, str]] = {}
    for size, free, used, mount in _DF.findall(case.answer(name).text):
        rows.setdefault(mount, (size, free, used, mount))
    return list(rows.values())
