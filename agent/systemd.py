"""Unit and environment files from data, and what systemd says of a unit."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence

from agent.files import File
from agent.machine import Machine, StepError, poll

UNITS = "/etc/systemd/system"
#: Seconds that systemctl and journalctl may take where they start and stop nothing.
_DEADLINE = 30
#: Seconds that journald may take to write down what it has received.
_SYNC_DEADLINE = 10
#: Seconds that a check waits in all for a machine that boots, and for units that start.
_SETTLE_DEADLINE = 8
#: Seconds until a unit has stopped: more than its TimeoutStopSec.
_STOP_DEADLINE = 120
_HEADER = "# Made by incus-stt; `pulumi up` writes it again.\n"

#: Sections of a unit: a directive's value, or several, each a line of its own.
Sections = Mapping[str, Mapping[str, str | Sequence[str]]]


def _one_line(name: str, text: str) -> str:
    """The text; an error does not show it, since it may be a secret."""
    if any(ord(character) < 32 for character in text):
        raise StepError(
            f"The value of {name} has control characters, which cannot stand in a unit file or an "
            "environment file.",
            unchanged=True,
        )
    return text


def quoted(name: str, value: str) -> str:
    """The value of a variable as one quoted word of an environment file."""
    text = _one_line(name, value)
    for character in '\\"$`':
        text = text.replace(character, f"\\{character}")
    return f'"{text}"'


def unit_text(sections: Sections) -> str:
    """A unit file. A ``%`` in a value stays as it is: values use no specifiers by accident."""
    lines: list[str] = []
    for section, directives in sections.items():
        lines.append(f"\n[{section}]\n")
        for name, value in directives.items():
            values = [value] if isinstance(value, str) else value
            lines += [f"{name}={_one_line(name, each)}\n" for each in values]
    return _HEADER + "".join(lines).lstrip("\n")


def environment_text(variables: Mapping[str, str]) -> str:
    """An environment file."""
    return _HEADER + "".join(f"{name}={quoted(name, value)}\n" for name, value in variables.items())


def unit_file(unit: str, text: str) -> File:
    """The file of one of our units."""
    return File(f"{UNITS}/{unit}", text)


def show(machine: Machine, unit: str, more: str = "") -> dict[str, str]:
    """State, restarts and invocation of a unit, and ``more`` properties."""
    names = "ActiveState,SubState,UnitFileState,NRestarts,InvocationID"
    names += f",{more}" if more else ""
    said = machine.run(
        ["systemctl", "show", "-p", names, unit], check=False, deadline=_DEADLINE
    ).stdout
    return dict(line.partition("=")[::2] for line in said.splitlines())


def settled(machine: Machine, unit: str) -> dict[str, str]:
    """State of a unit, once a start of it that is under way has ended, or the machine's boot."""
    state: dict[str, str] = {}

    def ended() -> bool:
        state.update(show(machine, unit))
        if state.get("ActiveState") == "activating":
            return state.get("SubState") == "auto-restart"  # it fails again and again
        return state.get("ActiveState") != "inactive" or not _boots(machine)

    machine.settled_by = machine.settled_by or time.monotonic() + _SETTLE_DEADLINE
    poll(ended, machine.settled_by - time.monotonic(), 0.3)
    return state


def _boots(machine: Machine) -> bool:
    """Whether the machine has not finished booting."""
    asked = ["systemctl", "is-system-running"]
    said = machine.run(asked, check=False, deadline=_DEADLINE).stdout.strip()
    return said in ("initializing", "starting")


def sync_journal(machine: Machine) -> None:
    """Have all in the journal that was said until now; what cannot be had is done without."""
    with contextlib.suppress(StepError):
        machine.run(["journalctl", "--sync"], check=False, deadline=_SYNC_DEADLINE)


def journal(machine: Machine, unit: str, lines: int = 15) -> str:
    """The last lines that a unit's last start wrote."""
    sync_journal(machine)
    words = ["journalctl", "--no-pager", "-o", "cat", "-n", str(lines)]
    invocation = show(machine, unit).get("InvocationID", "")
    said = ""
    if invocation:
        this_start = f"_SYSTEMD_INVOCATION_ID={invocation}"
        said = machine.run([*words, this_start], check=False, deadline=_DEADLINE).stdout
    return said or machine.run([*words, "-u", unit], check=False, deadline=_DEADLINE).stdout


def reload(machine: Machine) -> None:
    """Have systemd read its unit files again."""
    machine.run(["systemctl", "daemon-reload"], check=False, deadline=_DEADLINE)


def start(machine: Machine, unit: str, deadline: float) -> None:
    """Restart a unit, now and at every boot, however often it failed before.

    Raises:
        StepError: it does not start, or not within ``deadline`` s.
    """
    machine.run(["systemctl", "reset-failed", unit], check=False, deadline=_DEADLINE)
    machine.run(["systemctl", "enable", "--quiet", unit], deadline=_DEADLINE)
    machine.run(["systemctl", "restart", unit], deadline=deadline)


def show_socket(machine: Machine, socket: str, addresses: Sequence[str]) -> dict[str, str]:
    """State of a socket unit: ``closed`` where it is active, and lacks one of its ``addresses``.

    systemd's word is not enough: of a socket unit whose address has changed it closes the old one,
    and calls the unit active all the same.
    """
    state = show(machine, socket)
    if state.get("ActiveState") == "active" and not _holds(machine, addresses):
        state["ActiveState"] = "closed"
    return state


def _holds(machine: Machine, addresses: Sequence[str]) -> bool:
    said = machine.run(["ss", "-Hltnp"], check=False, deadline=_DEADLINE).stdout
    rows = (line.split() for line in said.splitlines() if '("systemd"' in line)
    return {row[3] for row in rows if len(row) > 3}.issuperset(addresses)


def listen(machine: Machine, socket: str, unit: str, addresses: Sequence[str]) -> None:
    """Have the socket of a service listen; one that does already goes on, and its clients wait.

    Raises:
        StepError: it cannot listen there.
    """
    machine.run(["systemctl", "enable", "--quiet", socket], deadline=_DEADLINE)
    if show_socket(machine, socket, addresses).get("ActiveState") == "active":
        return
    # The socket first, so that no client starts the service again; and a socket cannot start while
    # its service runs without it.
    for each in (socket, unit):
        machine.run(["systemctl", "stop", each], check=False, deadline=_STOP_DEADLINE)
    machine.run(["systemctl", "reset-failed", socket], check=False, deadline=_DEADLINE)
    machine.run(["systemctl", "start", socket], deadline=_DEADLINE)


def stop(machine: Machine, unit: str) -> None:
    """Stop a unit, now and at every boot, while its file is there still.

    One that is not there is stopped. systemd does not disable a unit without a file.
    """
    for words in (["disable", "--quiet", unit], ["stop", unit]):
        machine.run(["systemctl", *words], check=False, deadline=_STOP_DEADLINE)
