"""Runs inside a machine: applies steps, remembers them, says what differs from what it applied.

Standard library only, Python 3.11 or later; nothing else of this project is imported here. The
program imports the kinds (``agent.kinds``) to describe steps, so each kind is written once.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType

#: What ``dataclasses`` and ``pathlib`` import, and a check does without.
_SELDOM = ("copy", "inspect", "urllib.parse")
#: What they take of it by name.
_TAKEN = {"urllib.parse": "quote_from_bytes"}


def _later(name: str) -> Callable[[str], object]:
    return lambda attribute: getattr(importlib.import_module(name), attribute)


def _function(name: str, attribute: str) -> Callable[..., object]:
    return lambda *given: getattr(importlib.import_module(name), attribute)(*given)


def _import_light() -> None:
    """Import ``dataclasses`` and ``pathlib``; what they seldom need, once something uses it.

    A preview starts an agent in every machine, and most of what that takes are imports. So modules
    that every check needs import ``typing`` for the type checker only.
    """
    names = [name for name in _SELDOM if name not in sys.modules]
    for name in names:
        sys.modules[name] = late = ModuleType(name)
        if taken := _TAKEN.get(name):
            vars(late)[taken] = _function(name, taken)
        else:
            vars(late)["__getattr__"] = _later(name)
    import dataclasses  # noqa: F401  # from here on they are there
    import pathlib  # noqa: F401

    for name in names:
        del sys.modules[name]


_import_light()
