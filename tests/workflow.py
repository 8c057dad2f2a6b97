"""Runs a workflow's steps as a runner does: GitHub's, or Forgejo's and Gitea's.

Only what this project's workflows use: steps that are scripts, ``if``, ``env``, and expressions of
names, literals, ``==``, ``&&`` and ``||``. An action of somebody else's is an error.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

WORKFLOWS = Path(__file__).resolve().parents[1] / "workflows"
_EXPRESSION = re.compile(r"\$\{\{ (.*?) \}\}")
_SHELL = ("bash", "--noprofile", "--norc", "-e", "-o", "pipefail")


def read_workflow(name: str) -> dict[str, Any]:
    """A workflow's document; YAML 1.1 takes the key ``on`` for a truth value."""
    found: dict[Any, Any] = yaml.safe_load((WORKFLOWS / f"{name}.yml").read_text())
    return {"on" if key is True else key: value for key, value in found.items()}


@dataclass
class Job:
    """What the steps of a job did."""

    skipped: bool = False
    failed: str = ""
    ran: list[str] = field(default_factory=list)
    said: str = ""


@dataclass
class Runner:
    """A machine that runs jobs, one at a time, always in the same directory."""

    workspace: Path
    temporary: Path
    environment: Mapping[str, str]

    def run(self, name: str, **contexts: Any) -> Job:
        """The only job of a workflow."""
        workflow = read_workflow(name)
        ((_, job),) = workflow["jobs"].items()
        done, steps = Job(), dict[str, Any]()
        contexts = {**contexts, "steps": steps}
        if "if" in job and not _value(str(job["if"]), contexts, done):
            return Job(skipped=True)
        for step in job["steps"]:
            if set(step) - {"name", "id", "env", "if", "run"}:
                raise ValueError(f"{name}: {step['name']}: not known to this runner")
            wanted = _value(step["if"], contexts, done) if "if" in step else not done.failed
            if wanted:
                self._step(step, {**workflow.get("env", {}), **step.get("env", {})}, contexts, done)
        return done

    def _step(
        self, step: dict[str, Any], env: dict[str, Any], contexts: dict[str, Any], done: Job
    ) -> None:
        output, script = self.temporary / "output", self.temporary / "script.sh"
        output.write_text("")
        script.write_text(_filled(step["run"], contexts, done))
        github = contexts["github"]
        variables = {
            **self.environment,
            "GITHUB_API_URL": github["api_url"],
            "GITHUB_REPOSITORY": github["repository"],
            "GITHUB_OUTPUT": str(output),
            "RUNNER_TEMP": str(self.temporary),
            **{key: _filled(str(value), contexts, done) for key, value in env.items()},
        }
        ran = subprocess.run(
            [*_SHELL, str(script)],
            cwd=self.workspace,
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        done.ran.append(step["name"])
        done.said += ran.stdout + ran.stderr
        if ran.returncode and not done.failed:
            done.failed = step["name"]
        if "id" in step:
            lines = (line.partition("=") for line in output.read_text().splitlines())
            outputs = {key: value for key, _, value in lines}
            contexts["steps"][step["id"]] = {"outputs": outputs}


def _filled(text: str, contexts: Mapping[str, Any], done: Job) -> str:
    return _EXPRESSION.sub(lambda found: str(_value(found[1], contexts, done) or ""), text)


def _value(text: str, contexts: Mapping[str, Any], done: Job) -> Any:
    """An expression's value: first ``||``, then ``&&``, then ``==``, then a name or a literal."""
    for operator in ("||", "&&", "=="):
        left, found, right = text.partition(f" {operator} ")
        if found:
            one, two = (_value(side, contexts, done) for side in (left, right))
            return {"||": one or two, "&&": one and two, "==": one == two}[operator]
    if text == "failure()":
        return bool(done.failed)
    if literal := re.fullmatch("'([^']*)'", text):
        return literal[1]
    value: Any = contexts
    for key in text.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
