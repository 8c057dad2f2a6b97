"""The kinds of steps: the module ``NAME`` has the kind ``NAME``, and a new kind is one file.

A kind runs inside the machine: it may import only the standard library and ``agent``.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module

from agent.kinds.kind import Applied, Kind

__all__ = ["Applied", "Kind", "kind_named", "kinds"]


def kind_named(name: str) -> type[Kind] | None:
    """A kind by its name in a spec; None if there is none. No other kind is imported."""
    if name.isidentifier():
        try:
            import_module(f"{__name__}.{name}")
        except ModuleNotFoundError:
            return None
    return next((cls for cls in Kind.__subclasses__() if cls.kind == name), None)


@cache
def kinds() -> dict[str, type[Kind]]:
    """Every kind by its name in a spec."""
    from pkgutil import iter_modules

    for module in iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")
    return {cls.kind: cls for cls in Kind.__subclasses__()}
