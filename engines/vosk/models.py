"""Vosk's models. Names and sizes: the site of its makers."""

from __future__ import annotations

from engines.engine import EngineModel
from engines.speech_model import Memory, Source, SpeechModel


def _vosk(name: str, language: str, download: int, memory: int) -> EngineModel:
    """``download`` in MB, ``memory`` in MiB.

    The site asks for 300 MB for a small model and up to 16 GB for a large one.
    """
    spec = SpeechModel(
        parameters=0,
        download=download,
        languages=frozenset({language}),
        cpu={"float32": Memory(memory, Source.DERIVED)},
    )
    return EngineModel(name, spec)


MODELS = {
    name: _vosk(name, language, download, memory)
    for name, language, download, memory in (
        ("vosk-model-small-en-us-0.15", "en", 40, 300),
        ("vosk-model-en-us-0.22-lgraph", "en", 128, 1000),
        ("vosk-model-en-us-0.22", "en", 1800, 8000),
        ("vosk-model-small-fr-0.22", "fr", 41, 300),
        ("vosk-model-fr-0.22", "fr", 1400, 8000),
        ("vosk-model-small-de-0.15", "de", 45, 300),
        ("vosk-model-small-es-0.42", "es", 39, 300),
        ("vosk-model-small-it-0.22", "it", 48, 300),
    )
}
