"""The STT engines. An engine is one folder here; ``ENGINES`` finds it, there is no list to edit.

A folder has the engine's name, with underscores for dashes. It defines ``ENGINE``, an
``engines.engine.Engine``. This room may import ``declaration`` and
``agent``.
"""

from __future__ import annotations

from declaration.folders import Folders
from engines.engine import MODEL_ALIAS, Engine, EngineModel

#: The engine that comes first wherever engines are listed.
DEFAULT_ENGINE = "speaches"

#: Every engine by the name that ``stt:engine`` uses.
ENGINES: Folders[Engine] = Folders("engines", __path__, "ENGINE", first=DEFAULT_ENGINE, dashes=True)

__all__ = ["DEFAULT_ENGINE", "ENGINES", "MODEL_ALIAS", "Engine", "EngineModel"]
