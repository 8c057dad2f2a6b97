"""What each setting becomes in the environment of an engine's unit: found by changing it.

So no engine says a second time what its unit has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import PurePath
from typing import Any

from declaration.settings import Settings, parse_settings
from engines.engine import Engine
from engines.model_ref import ModelRef
from engines.service import CLIENT_KEYS, KEY, EngineContext
from engines.speech_model import SpeechModel

#: The key of the row for a machine's ``gpu``, which is not a setting.
GPU = "gpu"


def _settings(**values: Any) -> Settings:
    # An engine of one's own reads these two; what is in them does not matter here.
    return parse_settings({"custom": {"install": __file__, "unit": __file__}, **values})


def _set(**values: Any) -> Callable[[EngineContext], EngineContext]:
    return lambda context: replace(context, settings=_settings(**values))


def _given(**fields: Any) -> Callable[[EngineContext], EngineContext]:
    """What the declaration makes of a setting for the engine."""
    return lambda context: replace(context, **fields)


def _model(name: str, language: str) -> ModelRef:
    known = SpeechModel(parameters=0, download=0, languages=frozenset({language}))
    return ModelRef(name, f"its/{name}", known=known, other_names=[f"its/{name}"])


#: Each setting that an engine has something for, with another value.
_CHANGES = {
    "host": _set(host="127.0.0.1"),
    "port": _set(port=8001),
    "model": _given(model=_model("another", "fr")),
    "quantization": _given(compute_type="another"),
    "language": _set(language="de"),
    "keepAlive": _set(keepAlive="1h"),
    "limits.audioMinutes": _set(limits={"audioMinutes": 1}),
    "limits.uploadMB": _set(limits={"uploadMB": 1}),
    "limits.waiting": _set(limits={"waiting": 1}),
    "authentication": _set(authentication="none"),
    GPU: _given(device="cuda"),
}
#: Keys are in files; a variable names the file, whatever the keys are.
_FILES = {"apiKey": KEY, "clients": CLIENT_KEYS}


def becomes(engine: Engine) -> dict[str, list[str]]:
    """The names of variables, and of the service's files, by the setting that they come from."""
    context = EngineContext(
        settings=_settings(),
        device="cpu",
        model=_model("one", "en"),
        compute_type="one",
        ctranslate2=engine.ctranslate2 is not None,
        part=str,
    )
    before = _environment(engine, context)
    found: dict[str, list[str]] = {}
    for setting, change in _CHANGES.items():
        changed = change(context)
        after = _environment(engine, changed) if changed.device in engine.devices else before
        names = [*before, *(name for name in after if name not in before)]
        found[setting] = [name for name in names if before.get(name) != after.get(name)]
    for setting, file in _FILES.items():
        found[setting] = [name for name, value in before.items() if value == file]
    return found


def _environment(engine: Engine, context: EngineContext) -> dict[str, str]:
    """The variables of the unit, and its files by their names."""
    service = engine.service(context).service
    files = {PurePath(file.path).name: file.content for file in service.files}
    return {**service.variables, **files}
