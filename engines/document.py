"""The tables of docs/ that are the engines'."""

from __future__ import annotations

from collections.abc import Iterable

from declaration.generated import Parts, table
from engines import DEFAULT_ENGINE, ENGINES, Engine
from engines.speech_model import Memory, Source, SpeechModel
from engines.variables import GPU, becomes
from engines.whisper_models import DEFAULT_MODELS, WHISPER_MODELS

_NONE = "–"
#: Each figure has the letter of its source.
_LETTERS = dict(zip(Source, "ME", strict=True))
#: The words of the service's document: speed and accuracy by compute type.
_RATINGS = {
    "float16": ("Fast", "Best"),
    "int8_float16": ("Faster", "Good"),
    "int8": ("Fastest", "Acceptable"),
}


def _memory(figure: Memory | None) -> str:
    return f"{figure} ({_LETTERS[figure.source]})" if figure else _NONE


def _code(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words) or _NONE


def _languages(languages: frozenset[str]) -> str:
    return " ".join(sorted(languages)) if len(languages) < 5 else str(len(languages))


def engines_table() -> str:
    """The engines side by side."""
    return table(
        ("engine", "what it is", "strengths", "limitations", "licence"),
        (
            (
                f"`{engine.name}`" + (" (default)" if engine.name == DEFAULT_ENGINE else ""),
                engine.description,
                engine.strengths,
                engine.limitations,
                engine.license,
            )
            for engine in ENGINES.values()
        ),
    )


def choices_table() -> str:
    """What each engine takes for ``stt:model``, ``stt:quantization`` and ``stt:language``."""
    return table(
        ("engine", "default model", "other models", "on a GPU", "on a CPU", "`stt:language`"),
        (
            (
                f"`{engine.name}`",
                _default_model(engine),
                _other_models(engine),
                _code(engine.compute_types.get("cuda", ())),
                _code(engine.compute_types.get("cpu", ())),
                "yes" if engine.language else "the model decides",
            )
            for engine in ENGINES.values()
        ),
    )


def _default_model(engine: Engine) -> str:
    names = [engine.default_models.get(device, "") for device in engine.devices]
    if len(set(names)) <= 1:
        return _code(filter(None, names[:1]))
    where = {"cuda": "GPU", "cpu": "CPU"}
    return ", ".join(
        f"`{name}` ({where[device]})" for device, name in zip(engine.devices, names, strict=True)
    )


def _other_models(engine: Engine) -> str:
    ways = ["a short name"] if engine.models else []
    if engine.free_names:
        ways.append("any name")
    elif engine.repositories:
        ways.append("a Hugging Face id")
    if engine.model_file:
        ways.append(f"a directory with `{engine.model_file}`")
    return ", ".join(ways)


def quantization_table() -> str:
    """The compute types with what the default model takes of a card in each."""
    name = DEFAULT_MODELS["cuda"]
    figures = WHISPER_MODELS[name].gpu
    return table(
        ("type", f"GPU memory of {name}", "speed", "accuracy"),
        (
            (f"`{kind}`", _memory(figures[kind]), *_RATINGS.get(kind, (_NONE, _NONE)))
            for kind in ENGINES[DEFAULT_ENGINE].compute_types["cuda"]
        ),
    )


def whisper_table() -> str:
    """The Whisper models with their memory."""
    return table(
        (
            "model",
            "parameters",
            "download",
            "GPU, `float16`",
            "GPU, `int8_float16`",
            "CPU, `int8`",
            "languages",
            "accuracy",
        ),
        (
            (
                f"`{name}`",
                f"{model.parameters}M",
                f"{model.download} MB",
                _memory(model.gpu.get("float16")),
                _memory(model.gpu.get("int8_float16")),
                _memory(model.cpu.get("int8")),
                _languages(model.languages),
                model.accuracy or _NONE,
            )
            for name, model in WHISPER_MODELS.items()
        ),
    )


def others_table() -> str:
    """The models outside of the Whisper family."""
    return table(
        ("model", "engine", "download", "GPU", "CPU", "languages"),
        (
            (
                f"`{name}`",
                f"`{engine.name}`",
                f"{model.spec.download} MB",
                _best(engine, model.spec, "cuda"),
                _best(engine, model.spec, "cpu"),
                _languages(model.spec.languages),
            )
            for engine in ENGINES.values()
            for name, model in engine.models.items()
            if name not in WHISPER_MODELS
        ),
    )


def _best(engine: Engine, model: SpeechModel, device: str) -> str:
    """The memory in the best compute type on a device."""
    kind = next(iter(engine.compute_types.get(device, ())), "")
    return f"{_memory(model.memory(device).get(kind))}, `{kind}`" if kind else _NONE


def sources_list() -> str:
    """What the letter after a figure means."""
    return "\n".join(f"- ({letter}) {source.value}" for source, letter in _LETTERS.items())


def restarts_table() -> str:
    """How long requests wait while an engine restarts, or are refused."""
    return table(("engine", "wait"), ((each.name, _wait(each)) for each in ENGINES.values()))


def _wait(engine: Engine) -> str:
    told = "the preview says what its last start took"
    if not engine.holds_port:
        return f"refused meanwhile; {told}"
    return engine.restart or f"not measured; {told}"


def variables_table() -> str:
    """What each setting becomes in the environment of an engine's unit; equal columns are one."""
    found = {engine.name: becomes(engine) for engine in ENGINES.values()}
    columns: dict[tuple[str, ...], list[str]] = {}
    for name, settings in found.items():
        cells = tuple(_becomes(ENGINES[name], each, settings[each]) for each in settings)
        columns.setdefault(cells, []).append(name)
    labels = ("a machine's `gpu`" if each == GPU else f"`stt:{each}`" for each in settings)
    return table(
        ("setting", *map(_code, columns.values())),
        zip(labels, *columns, strict=True),
    )


def _becomes(engine: Engine, setting: str, names: list[str]) -> str:
    remark = engine.remarks.get(setting, "")
    if setting == "clients" and not engine.client_keys:
        return "refused"
    if not names:
        return remark or _NONE
    return _code(names) + (f" ({remark})" if remark else "")


def parts() -> Parts:
    """Every generated part by its file and its name."""
    return {
        "docs/engines.md": {
            "engines": engines_table(),
            "choices": choices_table(),
            "quantization": quantization_table(),
            "whisper": whisper_table(),
            "others": others_table(),
            "sources": sources_list(),
        },
        "docs/changes.md": {"restarts": restarts_table()},
        "docs/settings.md": {"variables": variables_table()},
    }
