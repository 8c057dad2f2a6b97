"""The Whisper family: sizes, languages, and memory, for every engine that runs these models.

Where each figure of memory comes from stands with it (``Source``). Parameters: the model cards of
OpenAI and of Hugging Face (the distilled models). Repositories: the ids to which faster-whisper
itself maps these names (``faster_whisper.utils``), except for large-v3-turbo: Speaches refuses the
one that faster-whisper names, because of its README. Download sizes: the weights in float16, in MB.
"""

from __future__ import annotations

from declaration.languages import LANGUAGES
from engines.engine import EngineModel
from engines.speech_model import Memory, Source, SpeechModel

#: Cantonese is new in large-v3 and the models made from it.
BEFORE_V3 = LANGUAGES - {"yue"}
ENGLISH = frozenset({"en"})
#: The models of ``stt:model`` where it is empty.
DEFAULT_MODELS = {"cuda": "large-v3-turbo", "cpu": "small"}

#: Working memory beside the weights on a CPU in faster-whisper's batches of 8, in MiB per unit of
#: the model's width: its README has small (width 768) at 4230 MB in float32; 976 are weights.
_CPU_WORK = (4230 - 976) / 768
#: MiB beside the weights of large-v2 in float16, in batches of 8; no Whisper model has more.
_LARGE_WORK = 6090 - 2 * 1550
#: MiB on a CPU in batches of 8, measured (docs/measurements.md), by parameters: float32, and int8.
_CPU_MEASURED = {39: (829, 893), 74: (1147, 974), 244: (2154, 1629)}


def _gpu(parameters: int, half: Memory, int8_float16: Memory | None) -> dict[str, Memory]:
    """All compute types on a GPU, from the figure for float16."""
    int8 = int8_float16 or Memory(half.mib - parameters, Source.DERIVED)
    work = min(half.mib - 2 * parameters, _LARGE_WORK)
    return {
        "float16": half,
        "bfloat16": Memory(half.mib, Source.DERIVED),
        "int8_float16": int8,
        "int8_bfloat16": Memory(int8.mib, Source.DERIVED),
        "int8": Memory(int8.mib, Source.SAME_TYPE),
        # The working memory has twice the bytes.
        "float32": Memory(4 * parameters + 2 * work, Source.DERIVED),
        "int8_float32": Memory(parameters + 2 * work, Source.DERIVED),
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
    half: Memory,
    *,
    int8_float16: Memory | None = None,
    languages: frozenset[str] = BEFORE_V3,
    accuracy: str = "",
) -> SpeechModel:
    return SpeechModel(
        parameters=parameters,
        download=round(parameters * 2.0),  # weights in float16
        languages=languages,
        gpu=_gpu(parameters, half, int8_float16),
        cpu=_cpu(parameters, width),
        accuracy=accuracy,
    )


def _english(parameters: int, width: int, half: Memory) -> SpeechModel:
    return _whisper(parameters, width, half, languages=ENGLISH)


def _document(gib: int) -> Memory:
    return Memory(gib * 1024, Source.DOCUMENT)


def _distilled(teacher: Memory, missing: int) -> Memory:
    """The memory of a model that has ``missing`` million fewer weights than its teacher."""
    return Memory(teacher.mib - 2 * missing, Source.DERIVED)


#: large-v2 in batches of 8. large-v3 is the same, except for one language and 48 mel bands. Better
#: known than the document's 10 GB, which is openai-whisper's.
_LARGE, _LARGE_INT8 = Memory(6090, Source.FASTER_WHISPER), Memory(4500, Source.FASTER_WHISPER)

#: The models from the smallest to the largest. The planner names smaller ones in this order.
WHISPER_MODELS: dict[str, SpeechModel] = {
    "tiny": _whisper(39, 384, _document(1), accuracy="Low"),
    "tiny.en": _english(39, 384, _document(1)),
    "base": _whisper(74, 512, _document(1), accuracy="Fair"),
    "base.en": _english(74, 512, _document(1)),
    "distil-small.en": _english(166, 768, _distilled(_document(2), 244 - 166)),
    "small": _whisper(244, 768, _document(2), accuracy="Good"),
    "small.en": _english(244, 768, _document(2)),
    "distil-medium.en": _english(394, 1024, _distilled(_document(4), 769 - 394)),
    "medium": _whisper(769, 1024, _document(4), accuracy="Very good"),
    "medium.en": _english(769, 1024, _document(4)),
    "distil-large-v2": _english(756, 1280, _distilled(_LARGE, 1550 - 756)),
    "distil-large-v3": _english(756, 1280, _distilled(_LARGE, 1550 - 756)),
    "large-v3-turbo": _whisper(
        809,
        1280,
        _document(6),
        int8_float16=_document(4),
        languages=LANGUAGES,
        accuracy="Excellent",
    ),
    "large-v2": _whisper(1550, 1280, _LARGE, int8_float16=_LARGE_INT8),
    "large-v3": _whisper(
        1550, 1280, _LARGE, int8_float16=_LARGE_INT8, languages=LANGUAGES, accuracy="Best"
    ),
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
