"""Drift for `make drift`: what was found, a line for each field."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from agent.difference import Difference


def report(drift: Mapping[str, Sequence[Difference]]) -> None:
    """Write it into the file that ``STT_DRIFT_REPORT`` names, if any."""
    if file := os.environ.get("STT_DRIFT_REPORT"):
        lines = [f"{name}: {each}\n" for name, fields in drift.items() for each in fields]
        Path(file).write_text("".join(lines), encoding="utf-8")
