"""A program that is run once for every change of its spec, and its result."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from agent.difference import Difference, missing
from agent.files import File, discard, write
from agent.kinds.kind import Applied, Kind
from agent.machine import Machine, StepError, last_lines, say

#: Seconds that ``check_argv`` may take.
_CHECK_DEADLINE = 20


@dataclass(frozen=True)
class Run(Kind):
    """``argv`` as ``user``; JSON on its stdout is the step's result.

    ``environment_files`` are read by systemd, as a service's are. ``script`` is a shell script,
    run by ``sh -eu``. ``creates`` is a path that is there afterwards; ``check_argv`` is a program
    that prints a JSON list of ``[field, found, wanted]`` if something differs. ``values`` are
    not used: another value runs the program again. Only they may be secrets, since everybody in
    the machine sees a program's arguments. ``shown``: what it says on stderr goes to the operator
    as it comes.
    """

    kind = "run"
    takes_secrets = True
    argv: Sequence[str] = field(default_factory=list)
    script: str = ""
    failure: str = ""
    resolution: str = ""
    user: str = ""
    directory: str = "/"
    environment: Mapping[str, str] = field(default_factory=dict)
    environment_files: Sequence[str] = field(default_factory=list)
    creates: str = ""
    check_argv: Sequence[str] = field(default_factory=list)
    #: Lock: what else must not be worked on meanwhile.
    works_on: str = ""
    values: Mapping[str, str] = field(default_factory=dict)
    shown: bool = False
    #: Whether it needs the internet.
    online: bool = False
    #: About what it downloads, for whoever reads the preview; MB, 0: not known.
    download: int = 0
    #: How long it may take; s.
    deadline: int = 3600

    @property
    def locks(self) -> list[str]:
        """What it works on."""
        return [self.works_on] if self.works_on else []

    @property
    def fetches(self) -> bool:
        """What the program says."""
        return self.online

    def apply(self, machine: Machine, step: str) -> Applied:
        """Run it."""
        if self.script:
            owner = f"{self.user}:{self.user}" if self.user else "root:root"
            file = File(f"/run/incus-stt-{quote(step, safe='')}.sh", self.script, "0600", owner)
            write(machine, file)
            try:
                said = self._run(machine, ["sh", "-eu", str(machine.path(file.path))])
            finally:
                discard(machine, file.path)
            if said.strip():  # an operator's script has something to tell its operator
                say(said.rstrip())
        else:
            said = self._run(machine, self.argv)
        lines = said.strip().splitlines()
        result: Any = None
        with contextlib.suppress(ValueError):
            result = json.loads(lines[-1]) if lines else None
        made = {"creates": self.creates, "check_argv": list(self.check_argv)}
        return Applied(result if isinstance(result, dict) else {}, made)

    def _run(self, machine: Machine, argv: Sequence[str]) -> str:
        words = [*self._in_unit(), *argv] if self.environment_files else argv
        done = machine.run(
            words,
            user="" if self.environment_files else self.user,
            environment=self.environment,
            directory="/" if self.environment_files else self.directory,
            check=False,
            deadline=self.deadline,
            shown=self.shown,
        )
        if done.returncode:
            raise StepError(
                self.failure or f"{' '.join(argv[:3])} failed.",
                details=last_lines(done.stderr or done.stdout),
                resolution=self.resolution,
            )
        return done.stdout

    def _in_unit(self) -> list[str]:
        words = ["systemd-run", "--quiet", "--wait", "--pipe", "--collect", "--service-type=exec"]
        # The client passes its own environment on, by name; values are on no command line.
        words += [f"--setenv={name}" for name in self.environment]
        properties = {
            "User": self.user,
            "WorkingDirectory": self.directory,
            "RuntimeMaxSec": str(self.deadline),
        }
        words += [word for k, v in properties.items() if v for word in ("-p", f"{k}={v}")]
        return words + [
            word for path in self.environment_files for word in ("-p", f"EnvironmentFile={path}")
        ]

    def check(self, machine: Machine, made: Mapping[str, Any]) -> list[Difference]:
        """Whether what it made is there still."""
        creates, argv = made.get("creates", self.creates), made.get("check_argv", self.check_argv)
        if creates and not machine.path(creates).exists():
            return [missing(creates)]
        if not argv:
            return []
        done = machine.run(argv, check=False, deadline=_CHECK_DEADLINE)
        try:
            return [Difference(*fields) for fields in json.loads(done.stdout)]
        except (ValueError, TypeError):
            return [Difference(" ".join(argv[:2]), "cannot be asked", "an answer")]
