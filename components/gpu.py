"""The host's cards for a stack: what ``gpu`` decides, with what the host says, in Pulumi's log."""

from __future__ import annotations

import json

import pulumi

from declaration.problems import DeclarationError, Problem
from gpu.cards import Card, parse_cards
from gpu.devices import select_cards
from gpu.ollama import OllamaModel, ollama_models
from gpu.ownership import gpu_obstacles
from gpu.planner import make_plan
from host.read import Live
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
    """The declaration with its compute type chosen; says what fits.

    Raises:
        DeclarationError: it does not fit, or the card cannot run it, and ``stt:force`` is not set.
    """
    machine = declaration.stt_machine
    cards, ollama = None, list[OllamaModel]()
    if live and machine:
        cards = select_cards(machine.gpus, cards_of(live))
        state = live.machines.get((machine.domain, machine.name))
        answers = [json.dumps(answer) for answer in state.answers.values()] if state else []
        if "ollama_server" in machine.roles:
            ollama = ollama_models(declaration.settings.ollama.models, answers)
    made = make_plan(declaration, cards, ollama)
    for note in made.notes:
        pulumi.log.info(note)
    for warning in made.warnings:
        pulumi.log.warn(warning)
    if made.problems and not declaration.settings.force:
        raise DeclarationError(made.problems)
    for problem in made.problems:
        pulumi.log.warn(f"stt:force is true, so this is tried anyway. {problem}")
    return declaration.with_compute_type(made.compute_type)
