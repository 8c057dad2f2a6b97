"""Running pip, uv and git: each has so long, and one that hangs is named."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from typing import Any

#: Seconds that one may take: they download, maybe hundreds of MB over a slow line.
DEADLINE = 3600.0


class HangsError(OSError):
    """A program did not end in time; the text says which, and what to do."""


def run(argv: Sequence[str], what: str, **options: Any) -> subprocess.CompletedProcess[Any]:
    """Run a program to its end; ``what`` it does, ``options`` are those of ``subprocess.run``.

    Raises:
        HangsError: it did not end.
    """
    try:
        return subprocess.run(argv, check=False, timeout=DEADLINE, **options)  # noqa: S603  # callers' own
    except subprocess.TimeoutExpired:
        raise HangsError(
            f"{what} and did not end within {DEADLINE:.0f} s. See whether the network, the package "
            "index and the proxy answer, then again."
        ) from None
