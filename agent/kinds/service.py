"""A systemd service. A change proves itself, or the configuration before it comes back."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from agent import files, systemd
from agent.difference import Difference, compare
from agent.files import File
from agent.http import HealthRequest, RefusedError, healthy
from agent.kinds.kind import Applied, Kind
from agent.machine import Machine, StepError, poll
from agent.record import digest_of, load
from agent.specs import SpecError, decode, encode
from agent.transaction import Transaction

#: Starts after which a unit that fails again and again will not become healthy.
_RESTARTS = 3
#: Seconds that the configuration before a change gets to come up again.
_BACK_DEADLINE = 120


@dataclass(frozen=True)
class Service(Kind):
    """A unit with its files.

    ``sections`` is the unit by section and directive, or ``unit_text`` the whole unit file.
    ``variables`` go into ``environment_file``. The service listens on ``host`` and ``port``; it
    works once all of ``health`` answer as they should, within ``deadline`` seconds.
    """

    kind: ClassVar = "service"
    starts_programs: ClassVar = True
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

    @property
    def locks(self) -> list[str]:
        """The unit."""
        return [f"unit-{self.unit}"]

    @property
    def unit_name(self) -> str:
        """The unit with its suffix."""
        return f"{self.unit}.service"

    def all_files(self) -> list[File]:
        """The unit file, its environment file, and the service's own."""
        text = self.unit_text or systemd.unit_text(self.sections)
        environment = systemd.environment_text(self.variables)
        return [
            systemd.unit_file(self.unit_name, text),
            File(self.environment_file, environment),
            *self.files,
        ]

    def apply(self, machine: Machine, step: str) -> Applied:
        """Put the files in place, start the unit, and wait until it works."""
        previous = applied_service(machine, step)
        change = Transaction(machine, step)
        if change.pending and previous and digest_of(encode(previous)) == change.target:
            change.end()  # cut off after it had proven itself
        mine = self.all_files()
        paths = [file.path for file in mine]
        stale = [f.path for f in previous.all_files() if f.path not in paths] if previous else []
        if not change.pending:
            self._check_port(machine, previous)
        try:
            change.begin([*paths, *stale], digest_of(encode(self)))
        except OSError as error:
            raise StepError(
                f"{step}: the files in use could not be kept: {error}.",
                resolution="The running service was not touched. Make room, then run up again.",
                unchanged=not change.pending,
            ) from None
        try:
            for path in stale:
                machine.path(path).unlink(missing_ok=True)
            files.remove(machine.path(f"{systemd.UNITS}/{self.unit_name}.d"))
            for file in mine:
                files.write(machine, file)
        except OSError as error:
            change.restore()
            machine.run(["systemctl", "daemon-reload"], check=False)
            raise StepError(
                f"{step}: the new files could not be written: {error}.",
                resolution="The files before were put back. Make room, then run up again.",
                unchanged=True,
            ) from None
        if previous and previous.unit != self.unit:
            systemd.stop(machine, previous.unit_name)
        began = time.monotonic()
        failure = self.start(machine, self.deadline)
        if failure is not None:
            self._go_back(machine, step, change, previous, failure)
        took = round(time.monotonic() - began, 3)
        invocation = systemd.show(machine, self.unit_name).get("InvocationID", "")
        result = {"unit": self.unit_name, "took": {"restart": took}, "invocation": invocation}
        return Applied(result, finish=change.end)

    def _check_port(self, machine: Machine, previous: Service | None) -> None:
        """Before the old one stops: a new port that something else has."""
        if previous and previous.port == self.port:
            return
        if systemd.show(machine, self.unit_name).get("ActiveState") == "active":
            return
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((self.host, self.port))
                listener.listen()
            except OSError:
                raise StepError(
                    f"Something else listens on port {self.port} already.",
                    resolution="Choose another port, or stop the other program. The running "
                    "service was not touched.",
                    unchanged=True,
                ) from None

    def start(self, machine: Machine, deadline: float) -> str | None:
        """Start the unit; None once it works, else what is wrong after ``deadline`` s."""
        try:
            systemd.start(machine, self.unit_name)
        except StepError as error:
            return str(error)
        return self.wait(machine, deadline)

    def wait(self, machine: Machine, deadline: float) -> str | None:
        """None once the service works, else what is wrong after ``deadline`` s or for good."""
        failure: list[str] = []

        def ended() -> bool:
            try:
                if healthy(machine, self.health):
                    failure.clear()
                    return True
            except RefusedError as error:
                failure[:] = [str(error)]
                return True
            state = systemd.show(machine, self.unit_name)
            failure[:] = [f"it is {state.get('ActiveState', 'not there')}"]
            restarts = int(state.get("NRestarts") or 0)
            return state.get("ActiveState") in ("failed", "inactive") or restarts >= _RESTARTS

        if not poll(ended, deadline, 0.2):
            return f"it did not answer as it should within {deadline:.0f} s"
        return failure[0] if failure else None

    def _go_back(
        self,
        machine: Machine,
        step: str,
        change: Transaction,
        previous: Service | None,
        failure: str,
    ) -> None:
        """Put the configuration before in place again, and say what happened."""
        said = systemd.journal(machine, self.unit_name)
        systemd.stop(machine, self.unit_name)
        change.restore()
        back = None
        if previous:
            back = previous.start(machine, _BACK_DEADLINE)
            brief = (
                f"The new configuration of {step} did not come up healthy ({failure}); the one "
                "before was put back."
            )
        else:
            machine.run(["systemctl", "daemon-reload"], check=False)
            brief = f"{step} did not come up healthy ({failure}); it was taken away again."
        if back:
            brief += f" That one does not work either: {back}."
        lines = "\n".join(f"  {line}" for line in said.splitlines())
        advice = ""
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
        state = systemd.show(machine, self.unit_name)
        found += compare(self.unit_name, "active", state.get("ActiveState", "not there"))
        found += compare(self.unit_name, "enabled", state.get("UnitFileState") or "not there")
        drop_ins = machine.path(f"{systemd.UNITS}/{self.unit_name}.d")
        if drop_ins.is_dir():
            names = ", ".join(sorted(path.name for path in drop_ins.iterdir()))
            found += compare(f"{self.unit_name}.d", "", names)
        return found

    def remove(self, machine: Machine, made: Mapping[str, Any]) -> None:
        """Stop the unit and remove its files."""
        systemd.stop(machine, self.unit_name)
        for file in self.all_files():
            machine.path(file.path).unlink(missing_ok=True)
        files.remove(machine.path(f"{systemd.UNITS}/{self.unit_name}.d"))
        machine.run(["systemctl", "daemon-reload"], check=False)


def applied_service(machine: Machine, step: str) -> Service | None:
    """The service as it was applied last."""
    record = load(machine, step)
    if record is None:
        return None
    try:
        return decode(Service, dict(record.spec))
    except SpecError:
        return None  # recorded by another version of the agent
