"""The host's cards for a stack: what ``gpu`` decides, with what the host says, in Pulumi's log."""

from __future__ import annotations

import json

import pulumi

from declaration.problems import DeclarationError, Problem
from gpu.cards import Card, parse_cards
from gpu.devices import select_cards
from gpu.memory import Holder, stt_memory
from gpu.ollama import OllamaModel, ollama_models
from gpu.ownership import gpu_obstacles
from gpu.planner import GpuPlan, make_plan
from host.read import Live
from stack.checks import OLLAMA_ROLE
from stack.declare import Declaration


def cards_of(live: Live) -> list[Card]:
    """The host's cards."""
    return parse_cards(live.resources, live.nvidia_smi)


def obstacles(declaration: Declaration, live: Live) -> list[Problem]:
    """What on the host keeps a machine from its card."""
    instances = {
        (project, name): found
        for (kind, project, name), found in live.objects.items()
        if kind == "instance"
    }
    return gpu_obstacles(declaration, cards_of(live), instances)


def plan(declaration: Declaration, live: Live | None) -> Declaration:
    """The declaration with the compute types chosen; says what fits.

    Raises:
        DeclarationError: it does not fit, or the card cannot run it, and ``stt:force`` is not set.
    """
    plans: list[GpuPlan] = []
    holders: dict[str, list[Holder]] = {}
    for service in declaration.services:
        cards, ollama, beside = None, list[OllamaModel](), list[Holder]()
        if live:
            cards = select_cards(service.machine.gpus, cards_of(live))
            ollama = _ollama(declaration, cards, live)
            beside = holders.setdefault(cards[0].pci, []) if cards else []
        made = make_plan(declaration, service, cards, ollama, beside)
        plans.append(made)
        need = stt_memory(service.model, made.compute_type, service.device)
        if need and service.device == "cuda":
            beside.append(Holder(f"the STT service of {service.machine.name}", need.mib))
    for note in dict.fromkeys(note for made in plans for note in made.notes):
        pulumi.log.info(note)
    for warning in dict.fromkeys(warning for made in plans for warning in made.warnings):
        pulumi.log.warn(warning)
    problems = list(dict.fromkeys(problem for made in plans for problem in made.problems))
    if problems and not declaration.settings.force:
        raise DeclarationError(problems)
    for problem in problems:
        pulumi.log.warn(f"stt:force is true, so this is tried anyway. {problem}")
    return declaration.with_compute_types([made.compute_type for made in plans])


def _ollama(declaration: Declaration, cards: list[Card], live: Live) -> list[OllamaModel]:
    """The models of every Ollama that has one of the cards, with what they take."""
    found: list[OllamaModel] = []
    for machine in declaration.topology.with_role(OLLAMA_ROLE):
        if set(cards) & set(select_cards(machine.gpus, cards_of(live))):
            state = live.machines.get((machine.domain, machine.name))
            answers = [json.dumps(answer) for answer in state.answers.values()] if state else []
            found += ollama_models(declaration.settings.ollama.models, answers)
    return found
