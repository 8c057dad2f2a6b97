"""Whether Ollama computes on a GPU: it says so at its start, and uses the CPU where it finds none.

Prints one line of JSON.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time

#: Seconds after its start in which Ollama tells what it found.
DEADLINE = 30
_FOUND = re.compile(r"inference compute.*library=([A-Za-z]*)")


def _output(*argv: str) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE, check=False)  # noqa: S603  # words of this program
    except subprocess.TimeoutExpired:
        sys.exit(f"{argv[0]} did not answer within {DEADLINE} s. Look at this machine's systemd.")
    return done.stdout.strip()


def libraries() -> list[str]:
    """What this start of Ollama computes with, as its journal has it."""
    invocation = _output("systemctl", "show", "-P", "InvocationID", "ollama")
    words = ("--no-pager", "-o", "cat", f"_SYSTEMD_INVOCATION_ID={invocation}")
    return [found.lower() for found in _FOUND.findall(_output("journalctl", *words))]


def main() -> None:
    """Wait for Ollama's line.

    Raises:
        SystemExit: it names no GPU.
    """
    end = time.monotonic() + DEADLINE
    while not (found := libraries()) and time.monotonic() < end:
        time.sleep(0.5)
    if not {"cuda", "rocm"} & set(found):
        said = ", ".join(found) or "nothing"
        sys.exit(f"Ollama runs on the CPU and not on the GPU (it says: {said}).")
    print(json.dumps({"device": found[0]}))


if __name__ == "__main__":
    main()
