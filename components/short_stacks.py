"""Where a resource comes from, as Pulumi's SDK notes it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def short_stacks() -> Iterator[None]:
    """Have the SDK note the place in this program, without all callers.

    The whole Python stack of each resource would be half of the state, and tell nobody anything.
    """
    sys.tracebacklimit = 6  # the SDK's own frames, and the first of this program's
    try:
        yield
    finally:
        del sys.tracebacklimit
