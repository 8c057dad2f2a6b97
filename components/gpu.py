"""The host's cards: who owns them, what stands in the way, what fits (``declaration.planner``)."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pulumi

from components.live import Live
from declaration.cards import seen_by
from declaration.declare import OLLAMA_ROLE, STT_ROLE, Declaration, device_of
from declaration.engines import ENGINE_FACTS
from declaration.planner import GpuPlan, OllamaModel, ollama_memory, plan_cpu, plan_gpu
from declaration.problems import DeclarationError, Problem
from declaration.settings import AUTO
from declaration.topology import MachinePlan


def gpu_obstacles(declaration: Declaration, live: Live) -> list[Problem]:
    """What on the host keeps a machine from its card."""
    problems: list[Problem] = []
    infra = declaration.settings.infra
    owners = declaration.topology.wants_gpu
    for machine in owners:
        vendor = machine.gpu_vendor
        cards = [card for card in live.cards if card.nvidia == (vendor == "nvidia")]
        place = f"{infra}: domains.{machine.domain}.machines.{machine.name}.gpu"
        if not cards:
            problems.append(
                Problem(
                    "stt:infra",
                    f"{infra} gives a GPU to {machine.name}; Incus sees no "
                    f"{'NVIDIA' if vendor == 'nvidia' else 'AMD'} card on the host "
                    "(`incus info --resources`). Use the stack cpu, or dev: make up STACK=cpu.",
                )
            )
        elif not seen_by(machine.gpus, live.cards):
            there = ", ".join(f"{card.name} at pci {card.pci}" for card in live.cards)
            problems.append(
                Problem(
                    place, f"no card of the host is the one that is asked for. There are: {there}."
                )
            )
    if owners and declaration.topology.gpu_policy == "exclusive":
        problems += _other_owners(declaration, live, owners)
    return problems


def _other_owners(
    declaration: Declaration, live: Live, owners: Sequence[MachinePlan]
) -> list[Problem]:
    """Instances of the host that have a GPU too, in whatever project."""
    ours = {(plan.domain, name) for plan in owners for name in (plan.name, plan.machine.formerly)}
    formerly = {plan.name: plan.domain.formerly for plan in declaration.topology.domains}
    ours |= {(formerly[domain] or domain, name) for domain, name in ours}
    others = sorted(
        (project, name)
        for (kind, project, name), found in live.objects.items()
        if kind == "instance"
        and (project, name) not in ours
        and any(
            device.get("type") == "gpu"
            for device in (found.get("expanded_devices") or found.get("devices") or {}).values()
        )
    )
    if not others:
        return []
    names = ", ".join(f"{name} (project {project})" for project, name in others)
    return [
        Problem(
            f"{declaration.settings.infra}: global.gpu_policy",
            f"is exclusive, {owners[0].name} is to own the GPU, and the host has other instances "
            f"with one: {names}. Take it from them (incus config device remove), or set "
            "gpu_policy: shared.",
        )
    ]


def probes(declaration: Declaration) -> dict[tuple[str, str], list[str]]:
    """What to ask in machines with a GPU beside their facts: Ollama's models and their sizes."""
    port = declaration.settings.ollama.port
    ask = f"curl --silent --noproxy '*' --max-time 5 http://127.0.0.1:{port}/api"
    return {
        (plan.domain, plan.name): [f"{ask}/tags && echo && {ask}/ps"]
        for plan in declaration.topology.wants_gpu
        if OLLAMA_ROLE in plan.roles
    }


def ollama_models(declaration: Declaration, machine: MachinePlan, live: Live) -> list[OllamaModel]:
    """The models of ``stt:ollama.models``, with what they take, as far as Ollama has them."""
    if OLLAMA_ROLE not in machine.roles:
        return []
    sizes: dict[str, int] = {}
    for answer in live.probed.get((machine.domain, machine.name), []):
        sizes |= read_sizes(b64decode(answer).decode(errors="replace"))
    names = declaration.settings.ollama.models
    return [
        OllamaModel(name, sizes.get(name if ":" in name else f"{name}:latest")) for name in names
    ]


def read_sizes(said: str) -> dict[str, int]:
    """MiB of a card by model: of a loaded one as Ollama says (/api/ps), else by its file's size."""
    sizes: dict[str, int] = {}
    for line in said.splitlines():
        try:
            listed: list[Mapping[str, Any]] = json.loads(line).get("models") or []
        except (ValueError, AttributeError):
            continue
        for model in listed:
            loaded = "size_vram" in model
            size = int(model["size"])
            sizes[model["name"]] = round(size / 2**20) if loaded else ollama_memory(size)
    return sizes


def plan(declaration: Declaration, live: Live | None) -> Declaration:
    """The declaration with its compute type chosen; says what fits.

    Raises:
        DeclarationError: it does not fit, or the card cannot run it, and ``stt:force`` is not set.
    """
    settings = declaration.settings
    machine = declaration.topology.having(STT_ROLE)
    if machine is None or not settings.enabled:
        return _with(declaration, plan_cpu(settings))
    device = device_of(settings, machine)
    if device == "cpu":
        made = plan_cpu(settings)
    elif live is None:
        first = ENGINE_FACTS[settings.engine].compute_types[device][0]
        kind = first if settings.quantization == AUTO else settings.quantization
        made = GpuPlan(
            kind, warnings=[f"What fits on the card was not checked; {kind} is assumed."]
        )
    else:
        cards = seen_by(machine.gpus, live.cards)
        made = plan_gpu(settings, machine.name, cards, ollama_models(declaration, machine, live))
    for note in made.notes:
        pulumi.log.info(note)
    for warning in made.warnings:
        pulumi.log.warn(warning)
    if made.problems and not settings.force:
        raise DeclarationError(made.problems)
    for problem in made.problems:
        pulumi.log.warn(f"stt:force is true, so this is tried all the same. {problem}")
    return _with(declaration, made)


def _with(declaration: Declaration, made: GpuPlan) -> Declaration:
    chosen = declaration.settings.model_copy(update={"quantization": made.quantization})
    return replace(declaration, settings=chosen)
