"""Which model ``stt:model`` means to an engine. Pure: what lies on the disk is passed in."""

from __future__ import annotations

import re

import engines
from declaration.problems import show, suggest
from engines.engine import Engine
from engines.model_ref import ModelDirectory, ModelRef

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FREE_NAME = re.compile(r"[\w./:@+-]{1,200}")


def is_path(name: str) -> bool:
    """Whether a model's name can only be a path."""
    return name.startswith(("./", "../", "/"))


def resolve_model(name: str, engine: Engine, found: ModelDirectory | None = None) -> ModelRef:
    """The model that a short name, a Hugging Face id, or a directory stands for.

    ``found`` is what the disk has under this name; None if it is not a directory.

    Raises:
        ValueError: the engine does not have such a model.
    """
    if model := engine.models.get(name):
        others = [model.id] if _REPOSITORY.fullmatch(model.id) else []
        return ModelRef(name, repository=model.id, known=model.spec, other_names=others)
    if engine.free_names:
        if not _FREE_NAME.fullmatch(name):
            raise ValueError(
                f"{show(name)} is not a model. Name the model as clients of your engine do "
                "(stt:model)"
            )
        return ModelRef(name, repository=name)
    if is_path(name) or found:
        if "\n" in name or "\0" in name:
            raise ValueError(f"{show(name)} is not the path of a directory")
        if not engine.model_file:
            raise ValueError(
                f"{show(name)} is a directory, and {engine.name} takes none. {_allowed(engine)}"
            )
        return ModelRef(name, directory=name, found=found)
    if others := [each.name for each in engines.ENGINES.values() if name in each.models]:
        raise ValueError(
            f"{show(name)} is not a model of {engine.name} (it is one of {', '.join(others)}). "
            f"Leave stt:model empty for the engine's default. {_allowed(engine)}"
        )
    if engine.repositories and _REPOSITORY.fullmatch(name):
        for short, model in engine.models.items():
            if model.id == name:
                return ModelRef(name, repository=name, known=model.spec, other_names=[short])
        return ModelRef(name, repository=name)
    raise ValueError(
        f"{show(name)} is not a known model.{suggest(name, engine.models)} {_allowed(engine)}"
    )


def _allowed(engine: Engine) -> str:
    more = "; a Hugging Face id (owner/name)" if engine.repositories else ""
    if engine.model_file:
        more += f"; or a directory with a model that contains {engine.model_file} (./models/mine)"
    return f"Allowed: {', '.join(engine.models)}{more}"
