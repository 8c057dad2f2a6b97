"""What an operator is told on the way."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    """A line, on stderr as all of `make`'s."""
    print(f"incus-stt: {text}", file=sys.stderr, flush=True)
