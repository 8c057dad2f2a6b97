"""What fits on a card: the STT model, Ollama's models beside it; what would fit instead. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from declaration.cards import Card, compute_types
from declaration.catalogue import CATALOGUE, WEIGHT_BYTES, Memory, Source
from declaration.engines import ENGINE_FACTS
from declaration.languages import LANGUAGES
from declaration.models import ModelRef
from declaration.problems import Problem, show
from declaration.settings import AUTO, Settings

#: MiB of a card that nobody gets: the driver's own, and a second process' CUDA context.
RESERVE = 512
#: What Ollama takes beside a model's weights: context and graph, as a part of the weights, and MiB.
OLLAMA_FACTOR, OLLAMA_BASE = 1.2, 512
#: Below this the service's document advises against using both at once.
TURNS_BELOW = 16 * 1024
#: NVIDIA's oldest driver for Ollama's releases; and for CUDA 12, whose libraries engines bring.
OLLAMA_DRIVER, CUDA_12_DRIVER = 550, 525
#: How many other combinations a refusal names.
NAMED = 4


@dataclass(frozen=True)
class OllamaModel:
    """A model of Ollama; ``mib`` of a card's memory, as Ollama says or by its size, if known."""

    name: str
    mib: int | None = None


@dataclass(frozen=True)
class GpuPlan:
    """What comes of the settings: the compute type, and what to tell of it."""

    quantization: str
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def ollama_memory(file_bytes: int) -> int:
    """MiB that a model of this size takes on a card."""
    return round(file_bytes / 2**20 * OLLAMA_FACTOR) + OLLAMA_BASE


def stt_memory(model: ModelRef, kind: str, device: str) -> Memory | None:
    """What the STT model takes in a compute type; None where nobody knows."""
    if model.known:
        return (model.known.gpu if device == "cuda" else model.known.cpu).get(kind)
    file = Path(model.directory) / "model.bin"
    if not model.directory or not file.is_file():
        return None
    # Its weights are taken to be stored in float16, and its working memory to be that of large.
    parameters = file.stat().st_size / 2 / 2**20
    weights = parameters * next(size for each, size in WEIGHT_BYTES.items() if each in kind)
    large = CATALOGUE["large-v3"]
    work = large.gpu["float16"].mib - 2 * large.parameters
    return Memory(round(weights + work), Source.DERIVED)


def plan_cpu(settings: Settings) -> GpuPlan:
    """Without a card there is little to choose."""
    if settings.quantization == AUTO:
        kind = ENGINE_FACTS[settings.engine].compute_types["cpu"][0]
        return GpuPlan(kind, [f"stt:quantization auto: {kind}, the fastest on a CPU"])
    return GpuPlan(settings.quantization)


@dataclass(frozen=True)
class _Budget:
    """MiB on the card of the STT engine (the first), beside what Ollama keeps there."""

    alone: int
    beside_pinned: int
    beside_all: int


def _budget(cards: Sequence[Card], ollama: Sequence[OllamaModel], pinned: bool) -> _Budget:
    sizes = [card.memory or 0 for card in cards]
    alone, others = sizes[0] - RESERVE, sum(sizes[1:])
    wanted = sum(model.mib or 0 for model in ollama)
    # Ollama goes to the other cards first.
    beside = alone - max(0, wanted - others)
    return _Budget(alone, beside if pinned else alone, beside)


def plan_gpu(
    settings: Settings, machine: str, cards: Sequence[Card], ollama: Sequence[OllamaModel]
) -> GpuPlan:
    """Whether the STT model and Ollama's fit on the cards of a machine, the first card first."""
    facts, card = ENGINE_FACTS[settings.engine], cards[0]
    allowed = compute_types(facts, card)
    pinned = settings.ollama.keepAlive == "-1"
    plan = GpuPlan(settings.quantization)
    plan.problems.extend(_driver_problems(card, with_ollama=bool(ollama)))
    if not allowed:
        message = (
            f"{settings.engine} has no compute type that {card} can run. Choose another engine."
        )
        plan.problems.append(Problem("stt:engine", message))
        return plan
    if settings.quantization != AUTO and settings.quantization not in allowed:
        plan.problems.append(
            Problem(
                "stt:quantization",
                f"{show(settings.quantization)} does not run on {card} with {settings.engine}. "
                f"Allowed: {AUTO}, {', '.join(allowed)}.",
            )
        )
        return plan
    model = settings.model_ref
    if card.memory is None:
        first = allowed[0] if settings.quantization == AUTO else settings.quantization
        plan.warnings.append(
            f"{machine}: the memory of {card} is not known (nvidia-smi does not run on the host); "
            f"whether {model.name} in {first} fits was not checked"
        )
        return GpuPlan(first, plan.notes, plan.warnings, plan.problems)
    budget = _budget(cards, ollama, pinned)
    kind: str = settings.quantization
    if settings.quantization == AUTO:
        kind, why = _choose(model, allowed, budget)
        plan.notes.append(f"stt:quantization auto: {kind}, {why}")
    plan = GpuPlan(kind, plan.notes, plan.warnings, plan.problems)
    need = stt_memory(model, kind, "cuda")
    if need is None:
        plan.warnings.append(
            f"{machine}: nobody knows what {model.name} takes of {card}; whether it fits was not "
            "checked. `make vram` shows it once it runs"
        )
        return plan
    _judge(plan, settings, machine, cards, ollama, need, budget, allowed)
    return plan


def _driver_problems(card: Card, with_ollama: bool) -> list[Problem]:
    least = OLLAMA_DRIVER if with_ollama else CUDA_12_DRIVER
    major = card.driver.split(".")[0]
    if not major.isdigit() or int(major) >= least:
        return []
    return [
        Problem(
            "the host's NVIDIA driver",
            f"{card.driver} is too old for {'Ollama' if with_ollama else 'CUDA 12'}. Install "
            f"{least} or newer.",
        )
    ]


def _choose(model: ModelRef, allowed: Sequence[str], budget: _Budget) -> tuple[str, str]:
    """The best compute type that fits beside Ollama's models; else by turns; else the smallest."""
    for room, why in (
        (budget.beside_all, "the best that fits"),
        (budget.beside_pinned, "the best that fits while Ollama's models are unloaded"),
    ):
        for kind in allowed:
            need = stt_memory(model, kind, "cuda")
            if need is None:
                return kind, "the best that the card can run"
            if need.mib <= room:
                return kind, why
    known = {kind: need.mib for kind in allowed if (need := stt_memory(model, kind, "cuda"))}
    return min(known, key=lambda kind: known[kind]), "the smallest"


def _judge(
    plan: GpuPlan,
    settings: Settings,
    machine: str,
    cards: Sequence[Card],
    ollama: Sequence[OllamaModel],
    need: Memory,
    budget: _Budget,
    allowed: Sequence[str],
) -> None:
    """Fits, fits by turns, or does not fit."""
    model = settings.model_ref
    stt = f"{model.name} in {plan.quantization} takes about {need} ({need.source.value})"
    known = [each for each in ollama if each.mib]
    listed = ", ".join(f"{each.name} about {each.mib / 1024:.1f} GiB" for each in known if each.mib)
    where = f"{machine}: {' and '.join(map(str, cards))}"
    sizes = f"{stt}{f'; of Ollama {listed}' if listed else ''}"
    for each in ollama:
        if not each.mib:
            plan.warnings.append(
                f"{machine}: what {each.name} takes is known once it is pulled; it is not counted"
            )
    if need.mib > budget.beside_pinned:
        pinned = budget.beside_pinned < budget.alone
        others = _others(settings, allowed, budget)
        more = "; or let Ollama's models go: stt:ollama.keepAlive 5m" if pinned else ""
        does = (
            f"What would fit, the nearest first: {'; '.join(others)}{more}."
            if others or more
            else "No model of this engine would fit."
        )
        plan.problems.append(
            Problem(
                "stt:model",
                f"does not fit on {where.partition(': ')[2]}: {sizes}, and {RESERVE / 1024:.1f} "
                f"GiB are kept free. {does} stt:force true tries it all the same.",
            )
        )
    elif need.mib <= budget.beside_all:
        spare = (budget.beside_all - need.mib) / 1024
        plan.notes.append(f"{where}: {sizes}: fits, {spare:.1f} GiB to spare")
        total = sum(each.memory or 0 for each in cards)
        if total < TURNS_BELOW and not known:
            plan.notes.append(
                f"{machine}: under 16 GiB, do not run a large language model and a transcription "
                "at the same time; `make vram` shows who holds what"
            )
    else:
        unloads = settings.keep_alive != -1
        plan.warnings.append(
            f"{where}: {sizes}: they fit only if they take turns. Ollama unloads a model after "
            f"{settings.ollama.keepAlive}; the STT model "
            + (f"after {settings.keepAlive}" if unloads else "stays (stt:keepAlive -1)")
            + "; `make flush` does it at once. Meanwhile Ollama runs what does not fit on the CPU"
        )


def _others(settings: Settings, allowed: Sequence[str], budget: _Budget) -> list[str]:
    """Combinations that fit: the same model first, then smaller ones, the largest first."""
    model = settings.model_ref
    names = [name for name, each in CATALOGUE.items() if settings.engine in each.ids]
    position = names.index(model.name) if model.name in names else len(names)
    wanted = {settings.language} if settings.language else set(LANGUAGES - {"yue"})
    if model.known:
        wanted &= model.known.languages
    found: list[str] = []
    for name in reversed(names[: position + 1]):
        known = CATALOGUE[name]
        if not wanted <= known.languages:
            continue
        fitting = [
            kind
            for kind in allowed
            if kind in known.gpu and known.gpu[kind].mib <= budget.beside_pinned
        ]
        for kind in fitting[:3] if name == model.name else fitting[:1]:
            found.append(f"{name} in {kind} ({known.gpu[kind]})")
    return found[:NAMED]
