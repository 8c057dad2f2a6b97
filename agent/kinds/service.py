"""A systemd service. A change proves itself, or the configuration before it comes back."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent import files, systemd
from agent.difference import Difference, compare
from agent.drain import Drain
from agent.files import File
from agent.http import HealthRequest, RefusedError, ask, healthy
from agent.kinds.kind import Applied, Kind
from agent.kinds.transcription import Transcription
from agent.machine import Machine, StepError, poll
from agent.record import load
from agent.specs import SpecError, decode
from agent.transaction import Transaction

#: Starts after which a unit that fails again and again will not become healthy.
_RESTARTS = 3


@dataclass(frozen=True)
class Service(Kind):
    """A unit with its files.

    ``sections`` is the unit by section and directive, or ``unit_text`` the whole unit file.
    ``variables`` go into ``environment_file``. The service listens on ``host`` and ``port``; it
    works once all of ``health`` answer as they should, within ``deadline`` seconds.
    """

    kind = "service"
    starts_programs = True
    unit: str
    environment_file: str
    variables: Mapping[str, str]
    health: Sequence[HealthRequest]
    port: int
    deadline: int
    host: str = "0.0.0.0"  # noqa: S104  # what is published is the operator's choice
    sections: Mapping[str, Mapping[str, str | Sequence[str]]] = field(default_factory=dict)
    unit_text: str = ""
    files: Sequence[File] = field(default_factory=list)
    #: A socket unit, without its suffix: systemd holds the port, and clients wait while the service
    #: restarts or another one takes its place. ``sections`` has to require it: systemd refuses to
    #: start a socket whose service runs without it. Empty: the service listens by itself.
    socket: str = ""
    #: Ports that the socket unit holds beside ``port``; its descriptors are in this order.
    more_ports: Sequence[int] = field(default_factory=list)
    #: URLs whose JSON is what the service says of itself, by the name of the answer.
    reports: Mapping[str, str] = field(default_factory=dict)
    #: Files of the program's own that another ``version`` of it changes at its start, such as a
    #: database. Copies are kept until that version works, and come back with the one before.
    data: Sequence[str] = field(default_factory=list)
    version: str = ""
    #: What it has to transcribe before a change counts.
    proof: Transcription | None = None
    #: How it leaves a gateway's turn while it changes; None: there is no gateway.
    drain: Drain | None = None

    @property
    def locks(self) -> list[str]:
        """The unit."""
        return [f"unit-{self.unit}"]

    @property
    def unit_name(self) -> str:
        """The unit with its suffix."""
        return f"{self.unit}.service"

    @property
    def _socket_name(self) -> str:
        return f"{self.socket}.socket"

    @property
    def _addresses(self) -> list[str]:
        return [f"{self.host}:{port}" for port in (self.port, *self.more_ports)]

    def _socket_files(self) -> list[File]:
        if not self.socket:
            return []
        listen: dict[str, str | Sequence[str]] = {
            "Service": self.unit_name,
            "ListenStream": self._addresses,
            # Before the machine has its address, too.
            "FreeBind": "yes",
            # However often the service fails: a socket that gives up would close the port.
            "TriggerLimitIntervalSec": "0",
        }
        sections: dict[str, dict[str, str | Sequence[str]]] = {
            "Unit": {
                "Description": f"The port of {self.unit_name}, which it keeps while it restarts",
                # The service needs it: restarted often, it would take the service down with it.
                "StartLimitIntervalSec": "0",
            },
            "Socket": listen,
            "Install": {"WantedBy": "sockets.target"},
        }
        return [systemd.unit_file(self._socket_name, systemd.unit_text(sections))]

    def all_files(self) -> list[File]:
        """The unit files, its environment file, and the service's own."""
        text = self.unit_text or systemd.unit_text(self.sections)
        environment = systemd.environment_text(self.variables)
        return [
            systemd.unit_file(self.unit_name, text),
            *self._socket_files(),
            File(self.environment_file, environment),
            *self.files,
        ]

    def apply(self, machine: Machine, step: str) -> Applied:
        """Put the files in place, start the unit, and wait until it works."""
        previous = applied_service(machine, step)
        if self.drain is None:
            return self._change(machine, step, previous)
        # Requests are at the service as it still is, on another port maybe.
        running = (previous and previous.drain) or self.drain
        with running.out_of_turn(machine, runs=previous is not None):
            return self._change(machine, step, previous)

    def out_of_turn(self, machine: Machine) -> contextlib.AbstractContextManager[None]:
        """While it restarts, a gateway gives it no requests; those that it has are waited for."""
        if self.drain is None:
            return contextlib.nullcontext()
        return self.drain.out_of_turn(machine, runs=True)

    def _change(self, machine: Machine, step: str, previous: Service | None) -> Applied:
        record = load(machine, step)
        change = Transaction(machine, step)
        if change.pending and record and record.made.get("change") == change.target:
            change.end()  # cut off after it had proven itself
        cut_off = change.pending
        mine = self.all_files()
        paths = [file.path for file in mine]
        earlier = [file.path for file in previous.all_files()] if previous else []
        stale = [path for path in dict.fromkeys([*earlier, *change.paths]) if path not in paths]
        if not cut_off:
            self._check_port(machine, previous)
        name = os.urandom(8).hex()
        data = self.data if previous and previous.version != self.version else []
        try:
            if data and previous:  # nothing writes into what is copied
                systemd.stop(machine, previous.unit_name)
            change.begin([*paths, *stale], name, data)
            if cut_off and change.data:  # whichever version has begun to change it
                systemd.stop(machine, self.unit_name)
                change.put_data_back()
        except (OSError, StepError) as error:
            if not cut_off:
                change.end()
                if data and previous:
                    previous.start(machine, previous.deadline)
            raise StepError(
                f"{step}: the files in use could not be kept: {error}.",
                resolution="The running service was not touched. Make room, then run up again.",
                unchanged=not cut_off,
            ) from None
        try:
            for file in mine:
                files.write(machine, file)
            files.remove(machine.path(f"{systemd.UNITS}/{self.unit_name}.d"))
        except (OSError, StepError) as error:
            if cut_off:
                _stop_units(machine, stale)
            change.restore()
            systemd.reload(machine)
            if (cut_off or data) and previous:  # it may be stopped since then
                previous.start(machine, previous.deadline)
            raise StepError(
                f"{step}: the new files could not be written: {error}.",
                resolution="The previous files were restored. Make room, then run up again.",
                unchanged=True,
            ) from None
        if stale and self.socket:  # its socket starts this one from now on, and not the one before
            systemd.reload(machine)
        began = time.monotonic()  # from here on the one before may be gone
        _stop_units(machine, stale)
        for path in stale:
            files.discard(machine, path)
        failure = self.start(machine, self.deadline)
        took = round(time.monotonic() - began, 3)
        disproof = None if failure else self._disproved(machine, step)
        failure = disproof.brief.removesuffix(".") if disproof else failure
        if failure is not None:
            advice = disproof.resolution if disproof else ""
            self._go_back(machine, step, change, previous, failure, advice)
        invocation = systemd.show(machine, self.unit_name).get("InvocationID", "")
        result = {"unit": self.unit_name, "took": {"restart": took}, "invocation": invocation}
        return Applied(result, {"change": name}, change.end)

    def _check_port(self, machine: Machine, previous: Service | None) -> None:
        """Before the old one stops: a new port that something else has."""
        import socket  # not at the top: a check does without, and starts sooner

        if previous and previous.port == self.port:
            return
        state = systemd.show(machine, self.unit_name).get("ActiveState")
        if previous is None and state == "active":  # it may be what listens there
            return
        with socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((self.host, self.port))
                listener.listen()
            except OSError as error:
                brief = f"Nothing can listen on {self.host}, port {self.port}: {error.strerror}."
                if error.errno == errno.EADDRINUSE:
                    brief = f"Something else listens on port {self.port} already."
                raise StepError(
                    brief,
                    resolution="Choose another port, or stop the other program. The running "
                    "service was not touched.",
                    unchanged=True,
                ) from None

    def start(self, machine: Machine, deadline: float) -> str | None:
        """Start the unit; None once it works, else what is wrong after ``deadline`` s."""
        end = time.monotonic() + deadline
        try:
            systemd.reload(machine)
            if self.socket:
                systemd.listen(machine, self._socket_name, self.unit_name, self._addresses)
            systemd.start(machine, self.unit_name, deadline)
        except (StepError, OSError) as error:
            return str(error)
        return self.wait(machine, deadline, end)

    def _disproved(self, machine: Machine, step: str) -> StepError | None:
        """Why it does not transcribe as it should; None where it does, or nothing is to be."""
        try:
            if self.proof:
                self.proof.apply(machine, step)
        except StepError as error:
            return error
        return None

    def wait(self, machine: Machine, deadline: float, end: float = 0) -> str | None:
        """None once the service works, else what is wrong, after ``deadline`` s or finally.

        ``end``: when these are over, where they began earlier.
        """
        failure: list[str] = []
        end = end or time.monotonic() + deadline

        def ended() -> bool:
            try:
                if healthy(machine, self.health, end - time.monotonic()):
                    failure.clear()
                    return True
                state = systemd.show(machine, self.unit_name)
            except (RefusedError, StepError, OSError) as error:
                failure[:] = [str(error)]
                return isinstance(error, RefusedError)
            restarts = int(state.get("NRestarts") or 0)
            again = f"; systemd has started it again, {restarts} times so far" if restarts else ""
            failure[:] = [f"it is {state.get('ActiveState', 'not there')}{again}"]
            return state.get("ActiveState") in ("failed", "inactive") or restarts >= _RESTARTS

        if not poll(ended, end - time.monotonic(), 0.2):
            return f"it did not answer as it should within {deadline:.0f} s"
        return failure[0] if failure else None

    def _go_back(
        self,
        machine: Machine,
        step: str,
        change: Transaction,
        previous: Service | None,
        failure: str,
        advice: str,
    ) -> None:
        """Put the configuration before in place again, and say what happened."""
        said = ""
        with contextlib.suppress(StepError, OSError):
            said = systemd.journal(machine, self.unit_name)
            said += systemd.journal(machine, self._socket_name) if self.socket else ""
        # A port that the one before holds, too, stays held.
        held = previous is not None and previous.socket == self.socket != ""
        same = previous is not None and previous.unit == self.unit
        with contextlib.suppress(StepError, OSError):
            if self.socket and not held:
                systemd.stop(machine, self._socket_name)
            if not (held and same):
                systemd.stop(machine, self.unit_name)
        # Without a record that can be read, its unit file is all that is known of the one before.
        unknown = previous is None and change.paths.get(f"{systemd.UNITS}/{self.unit_name}", False)
        back = None
        try:
            change.restore()
            if previous:
                if held and not same:
                    systemd.reload(machine)
                    # A client may have started it again meanwhile, by the socket.
                    systemd.stop(machine, self.unit_name)
                back = previous.start(machine, previous.deadline)
            else:
                systemd.reload(machine)
                if unknown:
                    systemd.start(machine, self.unit_name, self.deadline)
        except (StepError, OSError) as error:
            back = str(error)
        if previous or unknown:
            brief = (
                f"The new configuration of {step} did not come up healthy ({failure}); the "
                "previous one was restored."
            )
        else:
            brief = f"{step} did not come up healthy ({failure}); it was removed again."
        if back:
            brief += f" That did not work either: {back}."
        lines = "\n".join(f"  {line}" for line in said.splitlines())
        if "address already in use" in said.lower():
            advice = (
                "Something else listens on its port already. Choose another port, or stop the "
                "other program."
            )
        details = f"The last lines of its journal ({self.unit_name}):\n{lines}"
        raise StepError(brief, details=details, resolution=advice, unchanged=back is None)

    def check(self, machine: Machine, made: Mapping[str, Any]) -> list[Difference]:
        """Files and state of the unit, somebody else's drop-ins, a change that is not finished."""
        found = [each for file in self.all_files() for each in files.check(machine, file)]
        state = systemd.settled(machine, self.unit_name)
        found += _compare_state(self.unit_name, state)
        if self.socket:
            state = systemd.show_socket(machine, self._socket_name, self._addresses)
            found += _compare_state(self._socket_name, state)
        drop_ins = machine.path(f"{systemd.UNITS}/{self.unit_name}.d")
        if drop_ins.is_dir():
            names = ", ".join(sorted(path.name for path in drop_ins.iterdir()))
            found += compare(f"{self.unit_name}.d", "", names)
        return [*found, *(self.drain.check(machine) if self.drain else [])]

    def answers(self, machine: Machine) -> Mapping[str, Any]:
        """The answers to ``reports``."""
        return {name: ask(machine, HealthRequest(url)).json for name, url in self.reports.items()}

    def remove(self, machine: Machine, made: Mapping[str, Any]) -> None:
        """Stop the unit and remove its files."""
        _take_away(machine, [file.path for file in self.all_files()])
        files.remove(machine.path(f"{systemd.UNITS}/{self.unit_name}.d"))


def abandon(machine: Machine, step: str) -> None:
    """Take away what a change of a service that was cut off has begun; the service goes."""
    change = Transaction(machine, step)
    if change.pending:
        _take_away(machine, list(change.paths))
    change.end()


def _compare_state(unit: str, state: Mapping[str, str]) -> list[Difference]:
    return [
        *compare(unit, "active", state.get("ActiveState", "not there")),
        *compare(unit, "enabled", state.get("UnitFileState") or "not there"),
    ]


def _take_away(machine: Machine, paths: Sequence[str]) -> None:
    _stop_units(machine, paths)
    for path in paths:
        files.discard(machine, path)
    systemd.reload(machine)


def _stop_units(machine: Machine, paths: Sequence[str]) -> None:
    """Stop the services whose unit files are among the paths, their sockets before them."""
    for kind in (".socket", ".service"):
        for path in paths:
            directory, _, unit = path.rpartition("/")
            if directory == systemd.UNITS and unit.endswith(kind):
                systemd.stop(machine, unit)


def applied_service(machine: Machine, step: str) -> Service | None:
    """The service as it was applied last, as far as this version of the agent knows it."""
    record = load(machine, step)
    if record is None:
        return None
    try:
        return decode(Service, dict(record.spec), lenient=True)
    except SpecError:
        return None
