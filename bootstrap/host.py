"""Makes a host ready for a stack: the Pulumi CLI and, at the same time, Incus, a pool, the image.

Usage: ``python -m bootstrap.host STACK``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from declaration.problems import DeclarationError
from declaration.settings import Settings, parse_settings
from declaration.stack_file import read_stack_file

ROOT = Path(__file__).resolve().parent.parent

#: What is needed of the settings before Pulumi runs.
NEEDED = ("connection", "pool", "image")


def settings_of(stack: str) -> Settings:
    """The settings of a stack that are needed here; the program checks the others.

    Raises:
        DeclarationError: there is no such stack, or one of these settings is wrong.
    """
    values = read_stack_file(ROOT, stack).plain_values()
    return parse_settings({key: values[key] for key in NEEDED if key in values})


def set_up_incus(settings: Settings) -> int:
    """Run what is to be run on this machine; another host is up to its owner."""
    if settings.host_connection.kind != "local":
        print(
            f"incus-stt: Incus runs at {settings.connection}: nothing is set up there",
            file=sys.stderr,
        )
        return 0
    environment = {**os.environ, "STT_POOL": settings.pool}
    done = subprocess.run([ROOT / "bootstrap" / "incus.sh"], env=environment, check=False)  # noqa: S603
    if done.returncode:
        return done.returncode
    # It prints the image's name, which the program finds out by itself.
    done = subprocess.run(  # noqa: S603
        [ROOT / "bootstrap" / "image.sh", settings.image], stdout=subprocess.DEVNULL, check=False
    )
    return done.returncode


def main(stack: str) -> int:
    """Both at once: building the CLI takes as long as building the image."""
    settings = settings_of(stack)
    with subprocess.Popen([ROOT / "bootstrap" / "cli.sh"], stdout=subprocess.DEVNULL) as cli:  # noqa: S603
        try:
            failed = set_up_incus(settings)
        except BaseException:
            cli.terminate()
            raise
        if failed:
            cli.terminate()
            return failed
    return cli.returncode


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1]))
    except DeclarationError as error:
        sys.exit(f"incus-stt: error: {error}")
