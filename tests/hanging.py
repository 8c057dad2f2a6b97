"""A program that never ends by itself, in the place of one that should."""

from __future__ import annotations

from pathlib import Path


def hanging(program: Path) -> Path:
    """Write it at a path; the path."""
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    return program
