"""The Pulumi CLI, which ``bootstrap/backup.sh`` has put on PATH."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from operations.host import OperationError
from operations.stack import ROOT


class PulumiError(OperationError):
    """Pulumi ended with an error; the text is what it said last."""


def pulumi(
    *words: str,
    cwd: Path = ROOT,
    environment: Mapping[str, str] | None = None,
    stdin: str = "",
) -> str:
    """What ``pulumi WORDS`` prints; it never asks. ``environment`` is all that it gets.

    Raises:
        PulumiError: it failed.
    """
    done = subprocess.run(  # noqa: S603  # words of this project's own
        ["pulumi", *words, "--non-interactive"],  # noqa: S607  # the one on PATH
        input=stdin,
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ if environment is None else environment,
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip().removeprefix("error: ").splitlines() or ["it said nothing"]
        raise PulumiError(f"pulumi {' '.join(words[:2])}: {said[-1]}")
    return done.stdout
