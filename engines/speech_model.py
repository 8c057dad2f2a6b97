"""What is known of a speech model: its size, its languages, and the memory it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class Source(Enum):
    """Where a figure of memory comes from."""

    MEASURED = "measured by this project (docs/measurements.md)"
    DERIVED = "derived: another figure, with this type's weights or this model's"


@dataclass(frozen=True)
class Memory:
    """What a model takes of a card's (or, on a CPU, of the machine's) memory while it transcribes.

    ``mib`` is in MiB. It covers the weights, the working memory, and the engine itself.
    """

    mib: int
    source: Source

    def __str__(self) -> str:
        return f"{self.mib / 1024:.1f} GiB"


@dataclass(frozen=True)
class SpeechModel:
    """A model, whichever engine runs it.

    ``parameters`` is in millions (0: not published); ``download`` is the size of the files that are
    fetched, in MB. ``gpu`` and ``cpu`` give the memory by compute type. ``accuracy`` is the word of
    the service's document for it; empty if the document does not list the model.
    """

    parameters: int
    download: int
    languages: frozenset[str]
    gpu: Mapping[str, Memory] = field(default_factory=dict)
    cpu: Mapping[str, Memory] = field(default_factory=dict)
    accuracy: str = ""

    def memory(self, device: str) -> Mapping[str, Memory]:
        """The memory by compute type on ``cuda`` or ``cpu``."""
        return self.gpu if device == "cuda" else self.cpu
