"""How much memory the STT model takes, and how much of it the cards have. All figures in MiB."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engines.ctranslate2 import weight_bytes
from engines.model_ref import ModelRef
from engines.speech_model import Memory, Source
from engines.whisper_models import WHISPER_MODELS
from gpu.cards import Card, Holder
from gpu.ollama import OllamaModel

#: MiB of a card that are kept free: the driver's own, and a second process' CUDA context.
RESERVE = 512


def stt_memory(model: ModelRef, compute_type: str, device: str) -> Memory | None:
    """What the STT model takes in a compute type; None if it is not known."""
    if model.known:
        return model.known.memory(device).get(compute_type)
    if model.weights is None:
        return None
    # Its weights are taken to be stored in float16, and its working memory to be that of large.
    parameters = model.weights / 2 / 2**20
    large = WHISPER_MODELS["large-v3"]
    work = large.gpu["float16"].mib - 2 * large.parameters
    return Memory(round(parameters * weight_bytes(compute_type) + work), Source.DERIVED)


@dataclass(frozen=True)
class Budget:
    """MiB for the STT engine on its card, the first.

    ``total`` without Ollama, ``beside_pinned`` beside the models that Ollama never unloads, and
    ``beside_all`` beside all of Ollama's models.
    """

    total: int
    beside_pinned: int
    beside_all: int


def budget(
    cards: Sequence[Card], ollama: Sequence[OllamaModel], holders: Sequence[Holder], pinned: bool
) -> Budget:
    """The budget on cards of known memory; ``pinned``: Ollama never unloads its models."""
    sizes = [card.memory or 0 for card in cards]
    held = sum(each.mib for each in holders)
    total, others = sizes[0] - RESERVE - held, sum(sizes[1:])
    wanted = sum(model.mib or 0 for model in ollama)
    # Ollama goes to the other cards first.
    beside = total - max(0, wanted - others)
    return Budget(total, beside if pinned else total, beside)
