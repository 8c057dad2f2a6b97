"""The Pulumi CLI, which ``bootstrap/backup.sh`` has put on PATH."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from operations.host import OperationError
from operations.stack import ROOT

#: Seconds that a call may take: a state can be far away, but nothing is built here.
_DEADLINE = 600.0


@dataclass(frozen=True)
class Scratch:
    """A Pulumi project of no program, in a directory that goes away, with one stack."""

    directory: Path
    stack: str
    _environment: Mapping[str, str]

    @property
    def stack_file(self) -> Path:
        """The stack's file; what is there before ``init`` is taken for its own."""
        return self.directory / f"Pulumi.{self.stack}.yaml"

    def init(self) -> None:
        """Make the stack.

        Raises:
            PulumiError: the stack's file is of another passphrase.
        """
        self.run("stack", "init", self.stack)

    def get(self, key: str) -> str:
        """A value of its configuration, decrypted.

        Raises:
            PulumiError: there is none, or it is of another passphrase.
        """
        return self.run("config", "get", key, "--stack", self.stack)

    def set(self, key: str, value: str, *, secret: bool = False) -> None:
        """Set a value of its configuration.

        Raises:
            PulumiError: it cannot be set.
        """
        words = ["config", "set", key, "--stack", self.stack]
        self.run(*words, *(["--secret"] if secret else []), stdin=value)

    def run(self, *words: str, stdin: str = "") -> str:
        """What ``pulumi WORDS`` prints there.

        Raises:
            PulumiError: it failed.
        """
        return pulumi(*words, cwd=self.directory, environment=self._environment, stdin=stdin)


@contextmanager
def scratch(project: str, stack: str, passphrase: str) -> Iterator[Scratch]:
    """A project with a passphrase of its own; nothing of it stays."""
    with tempfile.TemporaryDirectory(prefix="incus-stt-") as work:
        place = Path(work)
        (place / "Pulumi.yaml").write_text(f"name: {project}\nruntime: yaml\n", encoding="utf-8")
        (place / "state").mkdir()
        key = place / "key"
        key.touch(0o600)
        key.write_text(passphrase, encoding="utf-8")
        own = {
            "PULUMI_BACKEND_URL": f"file://{place / 'state'}",
            "PULUMI_CONFIG_PASSPHRASE_FILE": str(key),
        }
        inherited = {k: v for k, v in os.environ.items() if k != "PULUMI_CONFIG_PASSPHRASE"}
        yield Scratch(place, stack, {**inherited, **own})


class PulumiError(OperationError):
    """Pulumi ended with an error; the text has what it said last."""


def pulumi(
    *words: str,
    cwd: Path = ROOT,
    environment: Mapping[str, str] | None = None,
    stdin: str = "",
) -> str:
    """What ``pulumi WORDS`` prints; it never asks. ``environment`` is all that it gets.

    Raises:
        PulumiError: it failed.
        OperationError: it hung.
    """
    try:
        done = subprocess.run(  # noqa: S603  # words of this project's own
            ["pulumi", *words, "--non-interactive"],  # noqa: S607  # the one on PATH
            input=stdin,
            capture_output=True,
            text=True,
            cwd=cwd,
            env=os.environ if environment is None else environment,
            timeout=_DEADLINE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise OperationError(
            f"pulumi {' '.join(words[:2])} did not end within {_DEADLINE:.0f} s. See whether the "
            "state's backend answers (PULUMI_BACKEND_URL, Pulumi.yaml), then run this again."
        ) from None
    if done.returncode:
        said = done.stderr.strip().removeprefix("error: ").splitlines() or ["it said nothing"]
        raise PulumiError(f"pulumi {' '.join(words[:2])}: {said[-1]}")
    return done.stdout
