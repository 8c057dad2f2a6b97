"""What Ollama's models take of a card, from what Ollama says of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from declaration.ollama_models import estimated_bytes
from gpu.cards import Holder

#: What Ollama takes beside a model's weights (context and graph): a part of the weights, and MiB.
_FACTOR, _BASE = 1.2, 512


@dataclass(frozen=True)
class OllamaModel:
    """A model of Ollama.

    ``mib``: what it takes of a card's memory, in MiB; None: not known yet. ``by_name``: Ollama has
    not pulled it yet, so that is what its name tells. ``answered``: whether Ollama was there to say
    so.
    """

    name: str
    mib: int | None = None
    by_name: bool = False
    answered: bool = True

    @property
    def known(self) -> bool:
        """Whether what it takes is known; a name alone may be another figure than its file."""
        return bool(self.mib) and self.answered

    def __str__(self) -> str:
        text = f"{self.name} about {(self.mib or 0) / 1024:.1f} GiB"
        return f"{text} (by its name; it is not pulled yet)" if self.by_name else text


def ollama_memory(file_bytes: int) -> int:
    """MiB that a model of this size takes on a card."""
    return round(file_bytes / 2**20 * _FACTOR) + _BASE


def _listed(answer: str) -> list[Mapping[str, Any]] | None:
    """The models of an answer; None if it is not an answer."""
    try:
        return json.loads(answer)["models"] or []
    except (ValueError, TypeError, KeyError):
        return None


def read_sizes(answer: str) -> dict[str, int]:
    """MiB of a card by model, by the sizes of their files: JSON, a line for each question.

    What a loaded one holds (/api/ps) does not count: it is another figure once it is unloaded.
    """
    return {
        model["name"]: ollama_memory(int(model["size"]))
        for line in answer.splitlines()
        for model in _listed(line) or ()
        if "size_vram" not in model
    }


def ollama_models(names: Sequence[str], answers: Sequence[str]) -> list[OllamaModel]:
    """The models of ``stt:ollama.models``, with what they take.

    It is what the files of those tell that Ollama has, and the names of others: a first run chooses
    as the next one will.
    """
    sizes: dict[str, int] = {}
    for answer in answers:
        sizes |= read_sizes(answer)
    answered = any(_listed(answer) is not None for answer in answers)
    return [_model(name, sizes.get(_full(name)), answered) for name in names]


def _model(name: str, mib: int | None, answered: bool) -> OllamaModel:
    if mib is None and (size := estimated_bytes(name)):
        return OllamaModel(name, ollama_memory(size), by_name=True, answered=answered)
    return OllamaModel(name, mib, answered=answered)


def _full(name: str) -> str:
    # Before the last slash a colon belongs to the registry's port.
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def undeclared_models(names: Sequence[str], answers: Sequence[str]) -> list[Holder]:
    """The models that hold memory of a card now (/api/ps), and are none of ``names``."""
    found: dict[str, Holder] = {}
    for answer in answers:
        for model in _listed(answer) or ():
            name, held = model["name"], int(model.get("size_vram") or 0)
            if held and name not in map(_full, names):
                found[name] = Holder(f"Ollama's {name}", round(held / 2**20))
    return list(found.values())
