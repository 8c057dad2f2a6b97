"""Which compute type the STT model gets, whether it fits beside Ollama, and what would. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from declaration.memory import LIMIT
from declaration.problems import Problem, show
from declaration.settings import AUTO
from engines.model_ref import ModelRef
from engines.speech_model import Memory
from gpu.alternatives import fitting_combinations
from gpu.cards import Card, Holder, compute_types, whole_number
from gpu.memory import RESERVE, Budget, budget, stt_memory
from gpu.ollama import OllamaModel
from stack.checks import OLLAMA_ROLE
from stack.declare import Declaration, SttService

#: MiB below which the service's document advises against using both services at once. A card with
#: 16 GB tells 15,360 to 16,380.
TURNS_BELOW = 15_000
#: MiB up to which it advises int8_float16 beside Ollama: a card with 8 GB tells up to 8,192.
SMALL, SMALL_TYPE = 9_000, "int8_float16"
#: NVIDIA's oldest driver for Ollama's releases; and for CUDA 12, whose libraries engines bring.
OLLAMA_DRIVER, CUDA_12_DRIVER = 550, 525


@dataclass(frozen=True)
class GpuPlan:
    """The compute type that was chosen, and what to tell the operator about it."""

    compute_type: str
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


def make_plan(
    declaration: Declaration,
    service: SttService,
    cards: Sequence[Card] | None,
    ollama: Sequence[OllamaModel],
    holders: Sequence[Holder] = (),
    now: Sequence[Holder] = (),
    memory: int | None = None,
    former: str = "",
) -> GpuPlan:
    """The plan for an STT service.

    ``memory`` is how many MiB its machine may take; None if that is not known. ``former`` is the
    compute type that it has on its card now; empty: none.

    ``cards`` are those of its machine; None if the host is not known. ``holders`` hold memory
    of the first of them for good, and ``now`` are those that do at the moment: they are told, and
    change no choice, so that two previews choose the same.
    """
    settings, engine = declaration.settings, declaration.engine
    if service.device == "cpu" or not settings.enabled:
        return _plan_cpu(declaration, service, ollama, memory)
    if cards is None:
        kind: str = settings.quantization
        if kind == AUTO:
            kind = _unchecked(engine.compute_types[service.device], former)
        warning = f"What fits on the card was not checked; {kind} is assumed."
        return GpuPlan(kind, warnings=(warning,))
    return plan_gpu(declaration, service, cards, ollama, holders, now, former)


def _plan_cpu(
    declaration: Declaration,
    service: SttService,
    ollama: Sequence[OllamaModel],
    memory: int | None,
) -> GpuPlan:
    """Without a card there is little to choose, and the machine's memory to look at."""
    settings, kinds = declaration.settings, declaration.engine.compute_types["cpu"]
    kind: str = settings.quantization
    notes: tuple[str, ...] = ()
    if settings.quantization == AUTO:
        kind, notes = kinds[0], (f"stt:quantization auto: {kinds[0]}, the fastest on a CPU",)
    need = stt_memory(service.model, kind, "cpu") if settings.enabled else None
    if need is None or memory is None:
        return GpuPlan(kind, notes)
    machine = service.machine.name
    beside = () if service.machine.gpus else ollama  # those are on the card
    sizes = _sizes(service, kind, need, beside, of=" of memory")
    may = f"the machine may take {memory / 1024:.1f} GiB ({LIMIT} {service.machine.memory})"
    spare = memory - need.mib - sum(each.mib or 0 for each in beside)
    if spare >= 0:
        return GpuPlan(kind, (*notes, f"{machine}: {sizes}; {may}: fits"))
    why = "the kernel ends a service that takes more"
    if need.mib <= memory:
        why = "both at once do not fit, and the kernel ends a service that takes more"
    warning = (
        f"{machine}: {sizes}; {may}: {why}. Choose a smaller model, or give the machine more "
        f"({LIMIT} in its config)"
    )
    return GpuPlan(kind, notes, (warning,))


def _sizes(
    service: SttService, kind: str, need: Memory, ollama: Sequence[OllamaModel], of: str = ""
) -> str:
    """What the STT model takes, and those of Ollama's models of which it is known."""
    listed = [str(each) for each in ollama if each.mib]
    sizes = f"{service.model.name} in {kind} takes about {need}{of} ({need.source.value})"
    return sizes + (f"; of Ollama {', '.join(listed)}" if listed else "")


def plan_gpu(
    declaration: Declaration,
    service: SttService,
    cards: Sequence[Card],
    ollama: Sequence[OllamaModel],
    holders: Sequence[Holder] = (),
    now: Sequence[Holder] = (),
    former: str = "",
) -> GpuPlan:
    """Whether the STT model and Ollama's fit on the cards of a machine, the first card first."""
    settings, engine, card = declaration.settings, declaration.engine, cards[0]
    asked: str = settings.quantization
    machine = service.machine.name
    allowed = compute_types(engine, card)
    problems = driver_problems(card, with_ollama=bool(ollama))
    if not allowed:
        message = f"{engine.name} has no compute type that {card} can run. Choose another engine."
        return GpuPlan(asked, problems=(*problems, Problem("stt:engine", message)))
    if asked not in (AUTO, *allowed):
        problem = Problem(
            "stt:quantization",
            f"{show(asked)} does not run on {card} with {engine.name}. "
            f"Allowed: {AUTO}, {', '.join(allowed)}.",
        )
        return GpuPlan(asked, problems=(*problems, problem))
    model = service.model
    if card.memory is None:
        kind = _unchecked(allowed, former) if asked == AUTO else asked
        warning = (
            f"{machine}: the memory of {card} is not known: nvidia-smi does not say, either on "
            f"the host or in a machine that has the card. Whether {model.name} in {kind} fits "
            "was not checked"
        )
        if asked == AUTO and kind == former:
            warning += f"; stt:quantization auto keeps {kind}, which the service has"
        return GpuPlan(kind, (), (warning,), problems)
    room = budget(cards, ollama, holders, pinned=settings.ollama.keepAlive == "-1")
    kind, notes = asked, tuple[str, ...]()
    if asked == AUTO:
        small = _beside_ollama(service, ollama) and card.memory <= SMALL and SMALL_TYPE in allowed
        preferred = allowed[allowed.index(SMALL_TYPE) :] if small else allowed
        kind, why = _choose(model, preferred, room)
        why += ", beside Ollama on a card of this size" if small else ""
        if reason := _why_kept(former, kind, model, allowed, ollama, room):
            kind, why = former, reason
        notes = (f"stt:quantization auto: {kind}, {why}",)
    need = stt_memory(model, kind, "cuda")
    if need is None:
        warning = (
            f"{machine}: how much memory {model.name} needs on {card} is not known, so whether it "
            "fits was not checked. `make vram` shows it once it runs"
        )
        return GpuPlan(kind, (*notes, *_advice(service, cards, ollama)), (warning,), problems)
    asking = _Asking(declaration, service, kind, need, allowed, now)
    verdict = _judge(asking, cards, ollama, holders, room)
    return GpuPlan(
        kind,
        (*notes, *verdict.notes),
        verdict.warnings,
        (*problems, *verdict.problems),
    )


def _beside_ollama(service: SttService, ollama: Sequence[OllamaModel]) -> bool:
    """Whether Ollama has the card too, with or without models of the stack."""
    return bool(ollama) or OLLAMA_ROLE in service.machine.roles


def driver_problems(card: Card, with_ollama: bool) -> tuple[Problem, ...]:
    """What is wrong with a card's driver; one that is not known is taken to do."""
    least = OLLAMA_DRIVER if with_ollama else CUDA_12_DRIVER
    major = whole_number(card.driver.split(".")[0])
    if major is None or major >= least:
        return ()
    return (
        Problem(
            "the host's NVIDIA driver",
            f"{card.driver} is too old for {'Ollama' if with_ollama else 'CUDA 12'}. Install "
            f"{least} or newer.",
        ),
    )


def _choose(model: ModelRef, allowed: Sequence[str], room: Budget) -> tuple[str, str]:
    """The best compute type that fits beside Ollama's models; else in turn; else the smallest."""
    for limit, why in (
        (room.beside_all, "the best that fits"),
        (room.beside_pinned, "the best that fits while Ollama's models are unloaded"),
    ):
        for kind in allowed:
            need = stt_memory(model, kind, "cuda")
            if need is None:
                return kind, "the best that the card can run"
            if need.mib <= limit:
                return kind, why
    known = {kind: need.mib for kind in allowed if (need := stt_memory(model, kind, "cuda"))}
    return min(known, key=lambda kind: known[kind]), "the smallest"


def _unchecked(allowed: Sequence[str], former: str) -> str:
    """The compute type where nothing tells what fits: that of the service, else the best."""
    return former if former in allowed else allowed[0]


def _why_kept(
    former: str,
    chosen: str,
    model: ModelRef,
    allowed: Sequence[str],
    ollama: Sequence[OllamaModel],
    room: Budget,
) -> str:
    """Why the service keeps the compute type that it has; empty: it gets the chosen one.

    A figure that is missing at the moment is no reason to change it, and the advice for small cards
    none to give up a better one that fits.
    """
    if former == chosen or former not in allowed:
        return ""
    need = stt_memory(model, former, "cuda")
    mib = need.mib if need else 0
    unknown = ", ".join(each.name for each in ollama if not each.known)
    if unknown and mib <= room.beside_pinned:
        return f"which the service has: what {unknown} takes is not known at the moment"
    if mib <= room.beside_all and allowed.index(former) < allowed.index(chosen):
        return "which the service has, and which fits"
    return ""


@dataclass(frozen=True)
class _Asking:
    """A service with a compute type, what it ``need``s in it, and which ones are ``allowed``.

    ``now``: who holds memory of its card at the moment.
    """

    declaration: Declaration
    service: SttService
    kind: str
    need: Memory
    allowed: Sequence[str]
    now: Sequence[Holder] = ()


def _judge(
    asking: _Asking,
    cards: Sequence[Card],
    ollama: Sequence[OllamaModel],
    holders: Sequence[Holder],
    room: Budget,
) -> GpuPlan:
    """Fits, fits in turn, or does not fit."""
    declaration, service, kind, need = asking.declaration, asking.service, asking.kind, asking.need
    machine, shown = service.machine.name, " and ".join(map(str, cards))
    sizes = _sizes(service, kind, need, ollama)
    sizes += "".join(f"; {each}" for each in holders)
    unknown = tuple(
        f"{machine}: what {each.name} takes is known only once it is pulled; it is not counted. "
        "If its name has a size, as llama3.2:3b does, that is known beforehand"
        for each in ollama
        if not each.mib
    )
    if need.mib > room.beside_pinned:
        message = f"does not fit on {shown}: {sizes}, and {RESERVE / 1024:.1f} GiB are kept free. "
        message += _what_would_fit(asking, room)
        problem = Problem("stt:model", f"{message} stt:force true tries it anyway.")
        return GpuPlan(kind, (), unknown, (problem,))
    if need.mib > room.beside_all:
        turns = f"{machine}: {shown}: {sizes}: {_turns(declaration)}"
        return GpuPlan(kind, (), (*unknown, turns))
    busy = "; ".join(map(str, asking.now))
    spare = (room.beside_all - need.mib - sum(each.mib for each in asking.now)) / 1024
    sizes += f"; now {busy}" if busy else ""
    advice = _advice(service, cards, ollama)
    if spare < 0:
        crowded = f"{machine}: {shown}: {sizes}: fits only after some of it is freed"
        return GpuPlan(kind, advice, (*unknown, crowded))
    fits = f"{machine}: {shown}: {sizes}: fits, {spare:.1f} GiB to spare"
    return GpuPlan(kind, (fits, *advice), unknown)


def _advice(
    service: SttService, cards: Sequence[Card], ollama: Sequence[OllamaModel]
) -> tuple[str, ...]:
    """What the service's document says of a small card that Ollama has too."""
    memory = sum(each.memory or 0 for each in cards)
    if memory >= TURNS_BELOW or not _beside_ollama(service, ollama):
        return ()
    return (
        f"{service.machine.name}: under 16 GiB, do not run a large language model and a "
        "transcription at the same time; `make vram` shows who holds what",
    )


def _what_would_fit(asking: _Asking, room: Budget) -> str:
    others = fitting_combinations(
        asking.declaration, asking.service.model, asking.allowed, room.beside_pinned
    )
    pinned = room.beside_pinned < room.total
    more = "; or let Ollama unload its models: stt:ollama.keepAlive 5m" if pinned else ""
    if not others and not more:
        return "No model of this engine would fit."
    return f"What would fit, the nearest first: {'; '.join(others)}{more}."


def _turns(declaration: Declaration) -> str:
    settings = declaration.settings
    unloads = settings.keep_alive != -1
    stt = f"after {settings.keepAlive}" if unloads else "stays (stt:keepAlive -1)"
    return (
        "they fit only if they take turns. Ollama unloads a model after "
        f"{settings.ollama.keepAlive}; the STT model {stt}; `make flush` does it at once. "
        "Meanwhile Ollama runs on the CPU what does not fit"
    )
