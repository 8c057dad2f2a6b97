"""Models by short name: what each engine calls them, how large they are, what memory they take.

Pure data. Where each figure comes from stands with it (``Source``). Parameters: the model cards of
OpenAI, Hugging Face (the distilled models) and NVIDIA. Repositories: the ids to which
faster-whisper itself maps these names (``faster_whisper.utils``), but for large-v3-turbo: Speaches
refuses the one that faster-whisper names, for its README. Download sizes: the files that are
fetched, in MB.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from declaration.languages import LANGUAGES

#: Cantonese is new in large-v3 and its children.
BEFORE_V3 = LANGUAGES - {"yue"}
ENGLISH = frozenset({"en"})
#: NVIDIA's model card of parakeet-tdt-0.6b-v3.
PARAKEET_V3 = frozenset(
    "bg cs da de el en es et fi fr hr hu it lt lv mt nl pl pt ro ru sk sl sv uk".split()
)


class Source(Enum):
    """Where a figure of memory comes from."""

    MEASURED = "measured by this project (docs/measurements.md)"
    DOCUMENT = "the service's document (OpenAI's own figures, rounded)"
    FASTER_WHISPER = "faster-whisper's README: large-v2, batches of 8, RTX 3070 Ti"
    SAME_TYPE = "the same as int8_float16: CTranslate2 keeps the rest of a float16 model as it is"
    DERIVED = "derived: another type's figure, with the weights in this one"


@dataclass(frozen=True)
class Memory:
    """What a model takes of a card's (or, on a CPU, of the machine's) memory while it transcribes.

    ``mib`` is in MiB and holds weights, working memory, and the engine itself.
    """

    mib: int
    source: Source

    def __str__(self) -> str:
        return f"{self.mib / 1024:.1f} GiB"


@dataclass(frozen=True)
class SpeechModel:
    """A model. ``ids``: what an engine calls it, by engine; ``parameters`` in millions."""

    ids: Mapping[str, str]
    parameters: int
    download: int
    languages: frozenset[str]
    gpu: Mapping[str, Memory] = field(default_factory=dict)
    cpu: Mapping[str, Memory] = field(default_factory=dict)

    @property
    def english_only(self) -> bool:
        """Whether it knows English alone."""
        return self.languages == ENGLISH


#: Bytes of a weight, by compute type.
WEIGHT_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}
#: Working memory beside the weights on a CPU at faster-whisper's batches of 8, in MiB a unit of the
#: model's width: its README has small (width 768) at 4230 MB in float32, of which 976 are weights.
_CPU_WORK = (4230 - 976) / 768


#: MiB beside the weights of large-v2 in float16, in batches of 8; no Whisper model has more.
_LARGE_WORK = 6090 - 2 * 1550


def _whisper_gpu(
    parameters: int, half: Memory, int8_float16: Memory | None = None
) -> dict[str, Memory]:
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


#: MiB on a CPU in batches of 8, measured (docs/measurements.md): float32, and int8.
_CPU_MEASURED = {39: (829, 893), 74: (1147, 974), 244: (2154, 1629)}


def _whisper_cpu(parameters: int, width: int) -> dict[str, Memory]:
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
    name: str,
    parameters: int,
    width: int,
    half: Memory,
    *,
    repository: str = "",
    int8_float16: Memory | None = None,
    languages: frozenset[str] = BEFORE_V3,
    owhisper: str = "",
) -> SpeechModel:
    repository = repository or f"Systran/faster-whisper-{name}"
    ids = {"speaches": repository, "faster-whisper": repository}
    return SpeechModel(
        ids=ids | ({"owhisper": owhisper} if owhisper else {}),
        parameters=parameters,
        download=round(parameters * 2.0),  # weights in float16
        languages=languages,
        gpu=_whisper_gpu(parameters, half, int8_float16),
        cpu=_whisper_cpu(parameters, width),
    )


def _document(gib: int) -> Memory:
    return Memory(gib * 1024, Source.DOCUMENT)


#: large-v2 in batches of 8, which large-v3 equals but for one language and 48 mel bands; better
#: known than the document's 10 GB, which is openai-whisper's.
_LARGE, _LARGE_INT8 = Memory(6090, Source.FASTER_WHISPER), Memory(4500, Source.FASTER_WHISPER)


def _distilled(teacher: Memory, lacks: int) -> Memory:
    """A model that lacks so many million of its teacher's weights."""
    return Memory(teacher.mib - 2 * lacks, Source.DERIVED)


#: The models, from the smallest to the largest; where a smaller one is to be named, by this order.
CATALOGUE: dict[str, SpeechModel] = {
    "tiny": _whisper("tiny", 39, 384, _document(1), owhisper="ggml-tiny-q8_0.bin"),
    "tiny.en": _whisper(
        "tiny.en", 39, 384, _document(1), languages=ENGLISH, owhisper="ggml-tiny.en-q8_0.bin"
    ),
    "base": _whisper("base", 74, 512, _document(1), owhisper="ggml-base-q8_0.bin"),
    "base.en": _whisper(
        "base.en", 74, 512, _document(1), languages=ENGLISH, owhisper="ggml-base.en-q8_0.bin"
    ),
    "distil-small.en": _whisper(
        "distil-small.en",
        166,
        768,
        _distilled(_document(2), 244 - 166),
        repository="Systran/faster-distil-whisper-small.en",
        languages=ENGLISH,
    ),
    "small": _whisper("small", 244, 768, _document(2), owhisper="ggml-small-q8_0.bin"),
    "small.en": _whisper(
        "small.en", 244, 768, _document(2), languages=ENGLISH, owhisper="ggml-small.en-q8_0.bin"
    ),
    "distil-medium.en": _whisper(
        "distil-medium.en",
        394,
        1024,
        _distilled(_document(4), 769 - 394),
        repository="Systran/faster-distil-whisper-medium.en",
        languages=ENGLISH,
    ),
    "medium": _whisper("medium", 769, 1024, _document(4)),
    "medium.en": _whisper("medium.en", 769, 1024, _document(4), languages=ENGLISH),
    "distil-large-v2": _whisper(
        "distil-large-v2",
        756,
        1280,
        _distilled(_LARGE, 1550 - 756),
        repository="Systran/faster-distil-whisper-large-v2",
        languages=ENGLISH,
    ),
    "distil-large-v3": _whisper(
        "distil-large-v3",
        756,
        1280,
        _distilled(_LARGE, 1550 - 756),
        repository="Systran/faster-distil-whisper-large-v3",
        languages=ENGLISH,
    ),
    "large-v3-turbo": _whisper(
        "large-v3-turbo",
        809,
        1280,
        _document(6),
        int8_float16=_document(4),
        repository="deepdml/faster-whisper-large-v3-turbo-ct2",
        languages=LANGUAGES,
        owhisper="ggml-large-v3-turbo-q8_0.bin",
    ),
    "large-v2": _whisper("large-v2", 1550, 1280, _LARGE, int8_float16=_LARGE_INT8),
    "large-v3": _whisper(
        "large-v3", 1550, 1280, _LARGE, int8_float16=_LARGE_INT8, languages=LANGUAGES
    ),
}

#: ONNX Runtime's CUDA memory: weights in float32, and as much again for the working memory of a
#: part of 30 s with its arena; on a CPU the files' size and half of it.
for _version, _languages in (("v2", ENGLISH), ("v3", PARAKEET_V3)):
    CATALOGUE[f"parakeet-tdt-0.6b-{_version}"] = SpeechModel(
        ids={"parakeet": f"istupakov/parakeet-tdt-0.6b-{_version}-onnx"},
        parameters=600,
        download=2500,
        languages=_languages,
        gpu={"float32": Memory(4 * 600 * 2, Source.DERIVED)},
        cpu={
            "int8": Memory(round(600 * 1.5) + 500, Source.DERIVED),
            "float32": Memory(round(4 * 600 * 1.5) + 500, Source.DERIVED),
        },
    )

#: Memory: the site of Vosk's models asks for 300 MB for a small model and up to 16 GB for a large.
for _name, _language, _download, _memory in (
    ("vosk-model-small-en-us-0.15", "en", 40, 300),
    ("vosk-model-en-us-0.22-lgraph", "en", 128, 1000),
    ("vosk-model-en-us-0.22", "en", 1800, 8000),
    ("vosk-model-small-fr-0.22", "fr", 41, 300),
    ("vosk-model-fr-0.22", "fr", 1400, 8000),
    ("vosk-model-small-de-0.15", "de", 45, 300),
    ("vosk-model-small-es-0.42", "es", 39, 300),
    ("vosk-model-small-it-0.22", "it", 48, 300),
):
    CATALOGUE[_name] = SpeechModel(
        ids={"vosk": _name},
        parameters=0,
        download=_download,
        languages=frozenset({_language}),
        cpu={"float32": Memory(_memory, Source.DERIVED)},
    )


def models_of(engine: str) -> list[str]:
    """The short names that an engine knows, from the smallest model to the largest."""
    return [name for name, model in CATALOGUE.items() if engine in model.ids]
