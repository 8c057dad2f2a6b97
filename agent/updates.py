"""Security updates of the distribution: which wait, and ``agent update``, which installs them."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Sequence
from typing import Any

from agent.files import PART, File, discard, read, write
from agent.kinds.service import Service
from agent.machine import STATE, Machine, StepError, last_lines, say
from agent.status import recorded

#: When the distribution was asked last, in seconds since 1970.
_RECORD = f"{STATE}/updates"
_LISTS = "/var/lib/apt/lists"
#: Seconds that apt may take to say what waits, and to fetch or install it.
_DEADLINE, _INSTALL_DEADLINE = 60, 1800
_APT = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=600"]
#: Somebody's own configuration files stay.
_KEEP = ["-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold"]
#: A package that apt would bring: its name, the version that is there, the next one, its origins.
_INSTALL = re.compile(r"^Inst (\S+) \[([^\]]+)\] \((\S+) ([^)]*)\)", re.MULTILINE)
_SECURITY = re.compile(r"security", re.IGNORECASE)
#: Services that systemd cannot restart under a machine that goes on: the network, logins, D-Bus.
_NEVER = re.compile(r"(dbus|systemd-networkd|systemd-logind|NetworkManager|networking|user@)")
#: What stands for the service manager itself among the units.
_MANAGER = "systemd"
_UNIT = re.compile(r"/([^/]+[.]service)(/|$)")
#: Files of the distribution that a process has open and that are another version by now.
_REPLACED = re.compile(r" /(usr|lib|lib64|bin|sbin)/.* [(]deleted[)]$", re.MULTILINE)


def waiting(machine: Machine) -> dict[str, Any]:
    """The security updates that wait, by the machine's package lists, and how old these are.

    ``asked``: when the distribution was asked, in seconds since 1970; 0 if it never was. Empty
    if apt does not say what waits.
    """
    try:
        found = _waiting(machine)
    except StepError:
        return {}
    return {"asked": _asked(machine), "packages": [name for name, _, _ in found]}


def _asked(machine: Machine) -> float:
    """Steps that install packages ask too; apt itself keeps the times of the server."""
    try:
        listed = machine.path(_LISTS).stat().st_mtime
    except OSError:
        listed = 0.0
    said = read(machine.path(_RECORD)) or ""
    return max(listed, float(said or 0))


def _waiting(machine: Machine) -> list[tuple[str, str, str]]:
    """Name, version and next version of each package that has a security update.

    Raises:
        StepError: apt does not say.
    """
    words = [*_APT, "--simulate", "-o", "Debug::NoLocking=1", "dist-upgrade"]
    said = machine.run(words, deadline=_DEADLINE).stdout
    return [
        (name, old, new)
        for name, old, new, origins in _INSTALL.findall(said)
        if _SECURITY.search(origins)
    ]


def update(machine: Machine) -> dict[str, Any]:
    """Ask the distribution for security updates, install them, restart what uses the old files.

    What was done: ``updated`` packages with both versions, the units that were ``restarted``, those
    that still run the ``old`` files, and ``broken`` ones, each with what is wrong.

    Raises:
        StepError: the distribution cannot be reached, or a package cannot be installed.
    """
    with machine.lock("packages"):
        _apt(machine, ["-o", "APT::Update::Error-Mode=any", "update"], "fetch its lists")
        discard(machine, f"{_RECORD}{PART}")
        write(machine, File(_RECORD, f"{time.time():.0f}\n"))
        found = _waiting(machine)
        if found:
            names = [name for name, _, _ in found]
            say(f"installing {len(names)} security updates: {' '.join(names)}")
            # An installation that was cut off is finished first: apt refuses to go on with it.
            machine.run(["dpkg", "--configure", "-a"], check=False, deadline=_INSTALL_DEADLINE)
            words = ["-y", *_KEEP, "--no-install-recommends", "--only-upgrade", "install", *names]
            _apt(machine, words, f"install {' '.join(names)}")
    restarted, broken = _restart(machine)
    return {
        "updated": [f"{name} {old} -> {new}" for name, old, new in found],
        "restarted": restarted,
        "old": sorted(using_replaced(machine)),
        "broken": broken,
    }


def _apt(machine: Machine, words: Sequence[str], what: str) -> None:
    done = machine.run([*_APT, *words], check=False, deadline=_INSTALL_DEADLINE)
    if done.returncode:
        raise StepError(
            f"apt-get could not {what}.",
            details=last_lines(done.stderr or done.stdout, 5),
            resolution="Check that the machine reaches its package sources, then run this again.",
        )


def _restart(machine: Machine) -> tuple[list[str], list[str]]:
    """Restart the services that use replaced files; their units, and what does not work then.

    A server behind a gateway leaves its turn meanwhile.
    """
    ours = {each.unit_name: each for each in recorded(machine, Service).values()}
    units = [unit for unit in sorted(using_replaced(machine)) if not _NEVER.match(unit)]
    broken: list[str] = []
    for unit in sorted(units, key=lambda name: (name in ours, name)):
        service = ours.get(unit)
        with service.out_of_turn(machine) if service else contextlib.nullcontext():
            why = _restart_unit(machine, unit, service)
        broken += [f"{unit}: {why}"] if why else []
    return units, broken


def _restart_unit(machine: Machine, unit: str, service: Service | None) -> str:
    """What does not work afterwards; empty if all does."""
    words = ["daemon-reexec"] if unit == _MANAGER else ["try-restart", unit]
    done = machine.run(["systemctl", *words], check=False, deadline=_INSTALL_DEADLINE)
    if done.returncode and (why := last_lines(done.stderr, 1)):
        return why
    return (service.wait(machine, service.deadline) or "") if service else ""


def using_replaced(machine: Machine) -> set[str]:
    """The units whose processes have files of the distribution open that were replaced."""
    found: set[str] = set()
    for name in filter(str.isdigit, os.listdir(machine.path("/proc"))):
        place = machine.path(f"/proc/{name}")
        try:
            if _REPLACED.search((place / "maps").read_text(errors="replace")):
                found.add(_unit_of(name, (place / "cgroup").read_text()))
        except OSError:  # it has ended
            continue
    return found - {""}


def _unit_of(process: str, cgroups: str) -> str:
    """The unit of a process; empty for one of a login, or of `incus exec`."""
    if process == "1":
        return _MANAGER
    units = [unit for line in cgroups.splitlines() for unit, _ in _UNIT.findall(line)]
    return units[0] if units else ""
