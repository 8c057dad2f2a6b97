"""What each STT engine can do, as far as a configuration has to know it. Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

#: A name of the model that every engine answers to: OpenAI's, for clients with a fixed one.
MODEL_ALIAS = "whisper-1"
#: CTranslate2's compute types by device, the best first; one that a device lacks would be replaced
#: in silence.
CTRANSLATE2_TYPES = {
    "cuda": (
        "float16",
        "int8_float16",
        "int8",
        "bfloat16",
        "int8_bfloat16",
        "int8_float32",
        "float32",
    ),
    "cpu": ("int8", "int8_float32", "float32"),
}


@dataclass(frozen=True)
class EngineFacts:
    """An engine. ``compute_types``: by device, the best first; a device that is not there it lacks.

    ``default_models``: by device, where ``stt:model`` is empty. ``model_file``: what a directory
    with a model of the operator's has to hold; empty: it takes no directories. ``repositories``:
    whether it takes any Hugging Face id. ``language``: whether a default language can be set, or
    the model decides. ``ctranslate2``: the pinned version.
    """

    default_models: Mapping[str, str]
    compute_types: Mapping[str, tuple[str, ...]]
    model_file: str = ""
    repositories: bool = False
    language: bool = True
    ctranslate2: tuple[int, int] | None = None

    @property
    def devices(self) -> tuple[str, ...]:
        """``cuda`` and ``cpu``, or one of them."""
        return tuple(self.compute_types)


_WHISPER = {"cuda": "large-v3-turbo", "cpu": "small"}

ENGINE_FACTS: dict[str, EngineFacts] = {
    "speaches": EngineFacts(
        _WHISPER, CTRANSLATE2_TYPES, "model.bin", repositories=True, ctranslate2=(4, 5)
    ),
    "faster-whisper": EngineFacts(
        _WHISPER, CTRANSLATE2_TYPES, "model.bin", repositories=True, ctranslate2=(4, 8)
    ),
    # Its files are float32, or int8 for CPUs: ONNX Runtime has no CUDA kernels for these.
    "parakeet": EngineFacts(
        dict.fromkeys(("cuda", "cpu"), "parakeet-tdt-0.6b-v3"),
        {"cuda": ("float32",), "cpu": ("int8", "float32")},
        "vocab.txt",
        repositories=True,
        language=False,
    ),
    "vosk": EngineFacts(
        {"cpu": "vosk-model-small-en-us-0.15"},
        {"cpu": ("float32",)},
        "am/final.mdl",
        language=False,
    ),
    # whisper.cpp's quantized files (q8_0).
    "owhisper": EngineFacts({"cpu": "base"}, {"cpu": ("int8",)}, "model.ggml"),
    "custom": EngineFacts({}, CTRANSLATE2_TYPES, repositories=True),
}
