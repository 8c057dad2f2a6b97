"""The STT engines. An engine is one folder here; ``ENGINES`` finds it, there is no list to edit.

A folder defines ``ENGINE``, an ``engines.engine.Engine``. This room may import ``declaration`` and
``agent``.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pkgutil import iter_modules

from engines.engine import MODEL_ALIAS, Engine, EngineModel

#: The engine that comes first wherever engines are listed.
DEFAULT_ENGINE = "speaches"


def discover(path: Iterable[str]) -> dict[str, Engine]:
    """The engines in the folders of ``path``, by name: the default first, then alphabetically.

    Raises:
        ValueError: two folders define an engine of one name.
    """
    found: dict[str, Engine] = {}
    for module in iter_modules(path):
        if not module.ispkg:
            continue
        engine = getattr(import_module(f"{__name__}.{module.name}"), "ENGINE", None)
        if engine is None:
            continue
        if engine.name in found:
            raise ValueError(
                f"engines/{module.name}: the engine name {engine.name!r} is taken by another "
                "folder of engines/. Give ENGINE another name."
            )
        found[engine.name] = engine
    return dict(sorted(found.items(), key=lambda item: (item[0] != DEFAULT_ENGINE, item[0])))


#: Every engine by the name that ``stt:engine`` uses.
ENGINES: dict[str, Engine] = discover(__path__)

__all__ = ["DEFAULT_ENGINE", "ENGINES", "MODEL_ALIAS", "Engine", "EngineModel", "discover"]
