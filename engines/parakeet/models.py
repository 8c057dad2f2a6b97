"""Parakeet's models. Parameters and languages: NVIDIA's model cards."""

from __future__ import annotations

from engines.engine import EngineModel
from engines.speech_model import Memory, Source, SpeechModel

#: NVIDIA's model card of parakeet-tdt-0.6b-v3.
_LANGUAGES_V3 = frozenset(
    "bg cs da de el en es et fi fr hr hu it lt lv mt nl pl pt ro ru sk sl sv uk".split()
)


def _parakeet(version: str, languages: frozenset[str]) -> EngineModel:
    """ONNX Runtime's memory in MiB.

    CUDA: the weights in float32, and as much again for the working memory of a part of 30 s with
    its arena. CPU: the files' size and half of it.
    """
    spec = SpeechModel(
        parameters=600,
        download=2500,
        languages=languages,
        gpu={"float32": Memory(4 * 600 * 2, Source.DERIVED)},
        cpu={
            "int8": Memory(round(600 * 1.5) + 500, Source.DERIVED),
            "float32": Memory(round(4 * 600 * 1.5) + 500, Source.DERIVED),
        },
    )
    return EngineModel(f"istupakov/parakeet-tdt-0.6b-{version}-onnx", spec)


MODELS = {
    "parakeet-tdt-0.6b-v2": _parakeet("v2", frozenset({"en"})),
    "parakeet-tdt-0.6b-v3": _parakeet("v3", _LANGUAGES_V3),
}
