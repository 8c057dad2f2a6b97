"""A program that is run once for every change of its spec, and what it has to say."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from agent.difference import Difference, missing
from agent.kinds.kind import Applied, Kind
from agent.machine import Machine, StepError, last_lines


@dataclass(frozen=True)
class Run(Kind):
    """``argv`` as ``user``; JSON on its stdout is the step's result.

    ``environment_files`` are read by systemd, as a service's are. ``script`` is a shell script,
    run by ``sh -eu``. ``creates`` is a path that is there afterwards; ``check_argv`` is a program
    that prints a JSON list of ``[field, found, wanted]`` where something differs. ``values`` are
    not used: another value runs the program again.
    """

    kind: ClassVar = "run"
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
    #: How long it may take; s.
    deadline: int = 3600

    @property
    def locks(self) -> list[str]:
        """What it works on."""
        return [self.works_on] if self.works_on else []

    def apply(self, machine: Machine, step: str) -> Applied:
        """Run it."""
        if self.script:
            with tempfile.NamedTemporaryFile("w", suffix=".sh", encoding="utf-8") as file:
                file.write(self.script)
                file.flush()
                Path(file.name).chmod(0o644)
                said = self._run(machine, ["sh", "-eu", file.name])
        else:
            said = self._run(machine, self.argv)
        lines = said.strip().splitlines()
        result: Any = None
        with contextlib.suppress(ValueError):
            result = json.loads(lines[-1]) if lines else None
        return Applied(result if isinstance(result, dict) else {})

    def _run(self, machine: Machine, argv: Sequence[str]) -> str:
        words = [*self._in_unit(), *argv] if self.environment_files else argv
        done = machine.run(
            words,
            user="" if self.environment_files else self.user,
            environment=self.environment,
            directory="/" if self.environment_files else self.directory,
            check=False,
            deadline=self.deadline,
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
        properties = {"User": self.user, "WorkingDirectory": self.directory}
        words += [word for k, v in properties.items() if v for word in ("-p", f"{k}={v}")]
        return words + [
            word for path in self.environment_files for word in ("-p", f"EnvironmentFile={path}")
        ]

    def check(self, machine: Machine, made: Mapping[str, Any]) -> list[Difference]:
        """Whether what it made is there still."""
        if self.creates and not machine.path(self.creates).exists():
            return [missing(self.creates)]
        if not self.check_argv:
            return []
        done = machine.run(self.check_argv, check=False, deadline=20)
        try:
            return [Difference(*fields) for fields in json.loads(done.stdout)]
        except (ValueError, TypeError):
            return [Difference(" ".join(self.check_argv[:2]), "cannot be asked", "an answer")]
