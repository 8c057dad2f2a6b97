"""Ctrl-C ends a command with one line and the status 130, and what it started ends before it.

An entry point imports this first: from then on it holds, also while the rest is imported.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

#: What shells report of a program that Ctrl-C ended.
STATUS = 130
#: Grace period after Ctrl-C, in seconds; then the program is asked again, with SIGTERM.
_GRACE = 2.0
#: Seconds that it may take after that: a package manager is not cut off.
PATIENCE = 1800.0


def _hook(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, where)
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second one ends what threads still do
    print("incus-stt: stopped", file=sys.stderr)
    raise SystemExit(STATUS)


sys.excepthook = _hook


@contextlib.contextmanager
def running(
    argv: Sequence[str | Path], *, grace: float = _GRACE, **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """Have a program run meanwhile, and wait for it; ``options`` are those of ``Popen``.

    It has ended afterwards in any case: nothing goes on behind the prompt. What is typed at a
    terminal reaches it too, and it has ``grace`` s to end before it gets SIGTERM; after another
    exception it gets that at once.
    """
    child = subprocess.Popen(argv, **options)  # noqa: S603  # the caller's own programs
    try:
        yield child
        child.wait()
    except BaseException as error:
        if not isinstance(error, KeyboardInterrupt):
            child.terminate()
        _end(child, argv[0], grace)
        raise


def _end(child: subprocess.Popen[bytes], name: str | Path, grace: float) -> None:
    # It may tidy up, or wait for what it cannot break off.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(grace)
        child.terminate()  # does nothing if it has ended
        child.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        said = f"did not finish within {PATIENCE:.0f} s. Look at the process {child.pid} (ps aux)."
        print(f"incus-stt: {name} {said}", file=sys.stderr)
    finally:
        signal.signal(signal.SIGINT, before)
