"""Scripts that run as root where ``incus`` runs."""

from __future__ import annotations

import contextlib
import shlex
import subprocess

from declaration.connection import Connection
from host.client import shell

#: Seconds that a script may take.
DEADLINE = 60
#: What comes after it has ``$sudo`` for before a command that needs root. Without a login, tools of
#: root are not on PATH.
AS_ROOT = """PATH=$PATH:/usr/sbin:/sbin
[ "$(id -u)" = 0 ] && sudo= || sudo='sudo -n'
"""


def run_as_root(connection: Connection, script: str, *words: str) -> bool:
    """Run a script as root on the host, where that can be; whether it ended in time.

    ``words`` are its arguments, and ``$sudo`` is what it puts before a command. What it says is
    lost.
    """
    if connection.kind == "incus":
        return True
    # In place of the shell around it, or that one would be ended in time, and the script go on.
    command = f"exec {shlex.join(['sh', '-c', AS_ROOT + script, 'sh', *words])}"
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(  # noqa: S603  # the operator's own host
            [*shell(connection), command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=DEADLINE,
            check=False,
        )
        return True
    return False
