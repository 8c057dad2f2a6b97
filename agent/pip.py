"""pip, as Debian and Ubuntu have it for ``python3 -m venv``: a wheel, which Python can run.

A virtual environment with a pip of its own takes longer to make than what pip is asked for here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from agent.machine import Machine, StepError, last_lines

if TYPE_CHECKING:
    import subprocess

#: Where the package python3-pip-whl has it, which python3-venv needs.
_DIRECTORY = "/usr/share/python-wheels"
_QUIET = ("--quiet", "--disable-pip-version-check")


def pip(
    machine: Machine, python: str, command: str, words: Sequence[str], *, text: str, deadline: int
) -> subprocess.CompletedProcess[str]:
    """Run ``command`` of pip for ``python``; ``text`` is its stdin.

    Raises:
        StepError: the machine has no pip, or it took more than ``deadline`` s.
    """
    wheels = sorted(machine.path(_DIRECTORY).glob("pip-*.whl"))
    if not wheels:
        raise StepError(f"{_DIRECTORY} has no pip, which the package python3-venv brings.")
    argv = [python, f"{wheels[-1]}/pip", command, *_QUIET, *words]
    return machine.run(argv, text=text, check=False, deadline=deadline)


@dataclass(frozen=True)
class PipInstall:
    """What ``lock`` names, by hash and as wheels only, into a directory for the machine's Python.

    ``failure``: what the operator reads where it fails.
    """

    tag: ClassVar = "pip-install"
    directory: str
    lock: str
    failure: str

    def do(self, machine: Machine) -> None:
        """Install it."""
        words = ["--require-hashes", "--only-binary", ":all:", "--no-deps", "--no-compile"]
        words += ["--target", str(machine.path(self.directory)), "--requirement", "/dev/stdin"]
        done = pip(machine, "python3", "install", words, text=self.lock, deadline=600)
        if done.returncode:
            raise StepError(self.failure, details=last_lines(done.stderr or done.stdout))
