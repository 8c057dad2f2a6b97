"""Makes a host ready for a stack: the Pulumi CLI and, at the same time, Incus, a pool, the image.

Before anything is touched, the whole declaration is checked as the program checks it.

Usage: ``python -m bootstrap.host STACK``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from declaration.interrupt import running
from declaration.problems import DeclarationError
from declaration.settings import Settings
from declaration.stack_file import read_stack_file
from roles import ROLES
from stack.declare import declare

ROOT = Path(__file__).resolve().parent.parent


def settings_of(stack: str) -> Settings:
    """The settings of a stack; its secrets are at their defaults, and for the program to check.

    Raises:
        DeclarationError: there is no such stack, or with every problem of its declaration.
    """
    return declare(read_stack_file(ROOT, stack).plain_values(), ROLES, ROOT).settings


def set_up_incus(settings: Settings) -> int:
    """Run what is to be run on this machine; another host is up to its owner."""
    if settings.host_connection.kind != "local":
        print(
            f"incus-stt: Incus runs at {settings.connection}: nothing is set up there",
            file=sys.stderr,
        )
        return 0
    environment = {**os.environ, "STT_POOL": settings.pool}
    with running([ROOT / "bootstrap" / "incus.sh"], env=environment) as incus:
        pass
    if incus.returncode:
        return incus.returncode
    # It prints the image's name, which the program finds out by itself.
    words: list[str | Path] = [ROOT / "bootstrap" / "image.sh", settings.image]
    with running(words, stdout=subprocess.DEVNULL) as image:
        pass
    return image.returncode


def main(stack: str) -> int:
    """Both at once: building the CLI takes as long as building the image."""
    settings = settings_of(stack)
    with running([ROOT / "bootstrap" / "cli.sh"], stdout=subprocess.DEVNULL) as cli:
        failed = set_up_incus(settings)
        if failed:
            cli.terminate()
    return failed or cli.returncode


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1]))
    except DeclarationError as error:
        sys.exit(f"incus-stt: error: {error}")
