"""Runs inside a machine: applies steps, remembers them, says what differs from what it applied.

Standard library only, Python 3.11 or later; nothing else of this project is imported here. The
program imports the kinds (``agent.kinds``) to describe steps, so each kind is written once.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType


def _import_dataclasses() -> None:
    """Import ``dataclasses``, and ``inspect`` only once something needs it.

    A preview starts an agent in every machine, and ``inspect`` is a sixth of what that takes.
    """
    if "inspect" not in sys.modules:
        late = ModuleType("inspect")
        vars(late)["__getattr__"] = lambda name: getattr(importlib.import_module("inspect"), name)
        sys.modules["inspect"] = late
        import dataclasses  # noqa: F401  # from here on it is there

        del sys.modules["inspect"]


_import_dataclasses()
