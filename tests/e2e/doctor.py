"""`make doctor` as tests run it: with programs, a network or mounts of its own."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.e2e.project import STACK, Project, run


class Screen:
    """What `make doctor` said, and its exit status."""

    def __init__(self, project: Project, *before: str, stack: str = STACK, **more: str) -> None:
        words = [*before, ".venv/bin/python", "-m", "doctor", "--stack", stack, "--json"]
        done = run(*words, cwd=project.root, env=project.variables(**more))
        self.status, self.said = done.returncode, done.stdout + done.stderr
        self.checks: list[dict[str, str]] = json.loads(done.stdout)["checks"] if done.stdout else []

    def of(self, state: str) -> set[str]:
        """The subjects that are in a state."""
        return {each["subject"] for each in self.checks if each["state"] == state}

    def line(self, subject: str, state: str) -> str:
        """The only finding of a subject that is in a state, with its next step."""
        found = [e for e in self.checks if (e["subject"], e["state"]) == (subject, state)]
        assert len(found) == 1, self.said
        assert (found[0]["next"] == "") == (state == "good")
        return f"{found[0]['found']} -> {found[0]['next']}"


def program(directory: Path, name: str, script: str) -> str:
    """A PATH with a stand-in before everything else."""
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(f"#!/bin/sh\n{script}\n")
    (directory / name).chmod(0o755)
    return f"{directory}:{os.environ['PATH']}"


def without(directory: Path, name: str) -> str:
    """A PATH that has every program but one."""
    directory.mkdir()
    for place in reversed([*os.environ["PATH"].split(":"), "/usr/sbin", "/sbin"]):
        for each in Path(place).glob("*") if Path(place).is_dir() else ():
            if each.name != name and not (directory / each.name).is_symlink():
                (directory / each.name).symlink_to(each)
    return str(directory)


def in_network(*script: str) -> tuple[str, ...]:
    """Words before a command: it runs in a network of its own, after a script. Incus stays."""
    return ("unshare", "--net", "sh", "-ec", f'{"; ".join(script)}; exec "$@"', "sh")


def in_files(*script: str) -> tuple[str, ...]:
    """The same with mounts of its own."""
    return ("unshare", "--mount", "sh", "-ec", f'{"; ".join(script)}; exec "$@"', "sh")
