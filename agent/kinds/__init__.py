"""The kinds of steps, by name. Every module of this package is imported: a new kind is one file."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from agent.kinds.kind import Applied, Kind

__all__ = ["Applied", "Kind", "kinds"]


@cache
def kinds() -> dict[str, type[Kind]]:
    """Every kind by its name in a spec."""
    for module in iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")
    return {cls.kind: cls for cls in Kind.__subclasses__()}
