"""What a command said in a machine, all of it: Incus 6.0 loses some, now and then."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Callable

#: A file in memory keeps what a command says; its name comes last of what is told. It stays open,
#: for in a machine that has just started /run may be mounted meanwhile.
_KEPT = "/run/stt-said-"
_RUN = """exec 9<>"$0"
"$@" >&9 9>&-
status=$?
cat /proc/self/fd/9
printf %s "$0"
exit $status"""
_ASK_AGAIN = 'cat "$0" && printf %s "$0"'
#: How often it may be lost.
_TRIES = 5


def whole(
    incus: Callable[..., subprocess.CompletedProcess[str]], *words: str
) -> subprocess.CompletedProcess[str]:
    """The end of ``incus WORDS``: of ``exec … -- COMMAND``, with all that the command said.

    The command itself is run once.
    """
    if "exec" not in words:
        return incus(*words)
    command = words.index("--") + 1
    before, file = words[:command], f"{_KEPT}{uuid.uuid4().hex}"
    done = incus(*before, "sh", "-c", _RUN, file, *words[command:])
    for _ in range(_TRIES):
        if done.stdout.endswith(file):
            done.stdout = done.stdout.removesuffix(file)
            return done
        again = incus(*before, "sh", "-c", _ASK_AGAIN, file)
        if done.returncode and again.returncode:  # it did not begin, or its machine is gone
            return done
        done.stdout = again.stdout
    raise AssertionError(f"incus exec has lost it {_TRIES} times: {words}")
