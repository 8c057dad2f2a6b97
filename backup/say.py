"""What an operator is told on the way."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    """A line, on stderr as all of `make`'s."""
    print(f"incus-stt: {text}", file=sys.stderr, flush=True)


def size(count: int) -> str:
    """Bytes, in the unit that is read easily."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
