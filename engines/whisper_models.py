"""The Whisper family: sizes, languages, and memory, for every engine that runs these models.

Memory is measured (docs/measurements.md) or derived from what was. Parameters: the model cards of
OpenAI and of Hugging Face (the distilled models). Repositories: the ids to which faster-whisper
itself maps these names (``faster_whisper.utils``), except for large-v3-turbo: Speaches refuses the
one that faster-whisper names, because of its README. Download sizes: the weights in float16, in MB.
"""

from __future__ import annotations

from collections.abc import Mapping

from declaration.languages import LANGUAGES
from engines.ctranslate2 import weight_bytes
from engines.engine import EngineModel
from engines.hub import hub_artifacts
from engines.speech_model import Memory, Source, SpeechModel

#: Cantonese is new in large-v3 and the models made from it.
BEFORE_V3 = LANGUAGES - {"yue"}
ENGLISH = frozenset({"en"})
#: The models of ``stt:model`` if it is empty.
DEFAULT_MODELS = {"cuda": "large-v3-turbo", "cpu": "small"}

#: Working memory beside the weights on a CPU in faster-whisper's batches of 8, in MiB per unit of
#: the model's width: its README has small (width 768) at 4230 MB in float32; 976 are weights.
_CPU_WORK = (4230 - 976) / 768
#: MiB on a CPU in batches of 8, measured (docs/measurements.md), by parameters: float32, and int8.
_CPU_MEASURED = {39: (882, 763), 74: (1214, 1187), 244: (2406, 1777)}


#: MiB of an H100 in batches of 8, measured with 50 tokens a window (docs/measurements.md), by
#: parameters: float16 (and bfloat16), int8 with the rest in float16 (CTranslate2 keeps what it does
#: not convert as it is stored), float32, and int8 with the rest in float32 where it was measured.
_GPU_MEASURED: Mapping[int, tuple[int, int, int, int | None]] = {
    39: (979, 855, 1431, 983),
    74: (1271, 1047, 1783, None),
    244: (2069, 1655, 2999, 2231),
    769: (4023, 2999, 6871, None),
    756: (3607, 2743, 6359, None),
    809: (3639, 2807, 6391, 3799),
    1550: (6389, 4855, 12055, 7255),
}


def _tokens(decoder: int, width: int, value_bytes: int) -> int:
    """MiB of 50 more tokens a window: 8 windows of 5 beams keep keys and values of each layer.

    A window of speech has about 100 tokens. CTranslate2 holds them twice while it sorts the beams.
    """
    return round(2 * 50 * 8 * 5 * decoder * 2 * width * value_bytes / 2**20)


def _gpu(parameters: int, width: int, decoder: int) -> dict[str, Memory]:
    """All compute types on a GPU, of a shape that was measured."""
    half, int8, whole, int8_whole = _GPU_MEASURED[parameters]
    more, more_whole = (_tokens(decoder, width, size) for size in (2, 4))
    float16 = Memory(half + more, Source.MEASURED)
    int8_float16 = Memory(int8 + more, Source.MEASURED)
    if int8_whole is None:
        # A weight takes three bytes less.
        int8_float32 = Memory(whole + more_whole - 3 * parameters * 10**6 // 2**20, Source.DERIVED)
    else:
        int8_float32 = Memory(int8_whole + more_whole, Source.MEASURED)
    return {
        "float16": float16,
        "bfloat16": float16,
        "int8_float16": int8_float16,
        "int8_bfloat16": int8_float16,
        "int8": int8_float16,
        "float32": Memory(whole + more_whole, Source.MEASURED),
        "int8_float32": int8_float32,
    }


def _cpu(parameters: int, width: int) -> dict[str, Memory]:
    if parameters in _CPU_MEASURED:
        whole, int8 = (Memory(mib, Source.MEASURED) for mib in _CPU_MEASURED[parameters])
        return {"float32": whole, "int8": int8, "int8_float32": int8}
    work = _CPU_WORK * width
    figures = {
        "float32": 4 * parameters + work,
        "int8": parameters + work,
        "int8_float32": parameters + work,
    }
    return {kind: Memory(round(mib), Source.DERIVED) for kind, mib in figures.items()}


def _whisper(
    parameters: int,
    width: int,
    decoder: int,
    languages: frozenset[str] = BEFORE_V3,
    accuracy: str = "",
    gpu: Mapping[str, Memory] | None = None,
) -> SpeechModel:
    """A model by its millions of parameters, its width, and its decoder's layers."""
    return SpeechModel(
        parameters=parameters,
        download=round(parameters * 2.0),  # weights in float16
        languages=languages,
        gpu=gpu or _gpu(parameters, width, decoder),
        cpu=_cpu(parameters, width),
        accuracy=accuracy,
    )


def _english(
    parameters: int, width: int, decoder: int, gpu: Mapping[str, Memory] | None = None
) -> SpeechModel:
    return _whisper(parameters, width, decoder, ENGLISH, gpu=gpu)


def _distilled(teacher: Mapping[str, Memory], missing: int) -> dict[str, Memory]:
    """The memory of a model that has ``missing`` million fewer weights than its teacher."""
    return {
        kind: Memory(
            figure.mib - round(missing * 10**6 * weight_bytes(kind) / 2**20), Source.DERIVED
        )
        for kind, figure in teacher.items()
    }


#: The models from the smallest to the largest. The planner names smaller ones in this order.
WHISPER_MODELS: dict[str, SpeechModel] = {
    "tiny": _whisper(39, 384, 4, accuracy="Low"),
    "tiny.en": _english(39, 384, 4),
    "base": _whisper(74, 512, 6, accuracy="Fair"),
    "base.en": _english(74, 512, 6),
    "distil-small.en": _english(166, 768, 4, _distilled(_gpu(244, 768, 12), 244 - 166)),
    "small": _whisper(244, 768, 12, accuracy="Good"),
    "small.en": _english(244, 768, 12),
    "distil-medium.en": _english(394, 1024, 2, _distilled(_gpu(769, 1024, 24), 769 - 394)),
    "medium": _whisper(769, 1024, 24, accuracy="Very good"),
    "medium.en": _english(769, 1024, 24),
    "distil-large-v2": _english(756, 1280, 2),
    "distil-large-v3": _english(756, 1280, 2),
    "large-v3-turbo": _whisper(809, 1280, 4, LANGUAGES, "Excellent"),
    "large-v2": _whisper(1550, 1280, 32),
    "large-v3": _whisper(1550, 1280, 32, LANGUAGES, "Best"),
}

_REPOSITORIES = {
    "distil-small.en": "Systran/faster-distil-whisper-small.en",
    "distil-medium.en": "Systran/faster-distil-whisper-medium.en",
    "distil-large-v2": "Systran/faster-distil-whisper-large-v2",
    "distil-large-v3": "Systran/faster-distil-whisper-large-v3",
    "large-v3-turbo": "deepdml/faster-whisper-large-v3-turbo-ct2",
}
#: The models as engines on CTranslate2 call them, by their Hugging Face ids.
CTRANSLATE2_MODELS = {
    name: EngineModel(_REPOSITORIES.get(name, f"Systran/faster-whisper-{name}"), spec)
    for name, spec in WHISPER_MODELS.items()
}
WHISPER_ARTIFACTS = hub_artifacts(
    [model.id for model in CTRANSLATE2_MODELS.values()],
    "MIT",
    # README.md is for people, and changes.
    ["config.json", "preprocessor_config.json", "model.bin", "tokenizer.json", "vocabulary.*"],
)
