"""Which model ``stt:model`` means to an engine."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from declaration.catalogue import CATALOGUE, SpeechModel, models_of
from declaration.engines import ENGINE_FACTS
from declaration.problems import show, suggest

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class ModelRef:
    """A model by the ``name`` under which clients ask for it.

    ``repository`` is what the engine calls it (a Hugging Face id, or a name of the engine's own);
    or it lies in a ``directory`` here. ``known`` is its entry in the catalogue, if it has one.
    """

    name: str
    repository: str = ""
    directory: str = ""
    known: SpeechModel | None = None

    @property
    def slug(self) -> str:
        """The model's name as one path component, in letters that no program minds."""
        name = self.repository.replace("/", "--") or Path(self.directory).resolve().name
        return re.sub(r"[^A-Za-z0-9._-]", "-", name).strip(".-") or "model"


def resolve_model(name: str, engine: str) -> ModelRef:
    """The model that a short name, a Hugging Face id, or a directory stands for.

    Raises:
        ValueError: the engine has no such model.
    """
    facts = ENGINE_FACTS[engine]
    known = CATALOGUE.get(name)
    if known and engine in known.ids:
        return ModelRef(name, repository=known.ids[engine], known=known)
    if engine == "custom":
        if not re.fullmatch(r"[\w./:@+-]{1,200}", name):
            raise ValueError(
                f"{show(name)} is no model. Name the model as clients of your engine do (stt:model)"
            )
        return ModelRef(name, repository=name)
    if name.startswith(("./", "../", "/")) or Path(name).is_dir():
        if "\n" in name or "\0" in name:
            raise ValueError(f"{show(name)} is no path of a directory")
        if not facts.model_file:
            raise ValueError(
                f"{show(name)} is a directory, and {engine} takes none. {_allowed(engine)}"
            )
        return ModelRef(name, directory=name)
    if known:
        engines = ", ".join(each for each in known.ids)
        raise ValueError(
            f"{show(name)} is no model of {engine} (it is one of {engines}). Leave stt:model empty "
            f"for the engine's default. {_allowed(engine)}"
        )
    if facts.repositories and _REPOSITORY.fullmatch(name):
        return ModelRef(name, repository=name)
    raise ValueError(
        f"{show(name)} is no known model.{suggest(name, models_of(engine))} {_allowed(engine)}"
    )


def _allowed(engine: str) -> str:
    facts = ENGINE_FACTS[engine]
    more = "; a Hugging Face id (owner/name)" if facts.repositories else ""
    if facts.model_file:
        more += f"; or a directory with a model, which holds {facts.model_file} (./models/mine)"
    return f"Allowed: {', '.join(models_of(engine))}{more}"
