"""The host's cards for a stack: what ``gpu`` decides, with what the host says, in Pulumi's log."""

from __future__ import annotations

from base64 import b64decode

import pulumi

from components.live import Live
from declaration.problems import DeclarationError, Problem
from gpu.devices import select_cards
from gpu.ollama import OllamaModel, ollama_models, size_question
from gpu.ownership import gpu_obstacles
from gpu.planner import make_plan
from stack.checks import OLLAMA_ROLE
from stack.declare import Declaration


def obstacles(declaration: Declaration, live: Live) -> list[Problem]:
    """What on the host keeps a machine from its card."""
    instances = {
        (project, name): found
        for (kind, project, name), found in live.objects.items()
        if kind == "instance"
    }
    return gpu_obstacles(declaration, live.cards, instances)


def probes(declaration: Declaration) -> dict[tuple[str, str], list[str]]:
    """What to ask in machines with a GPU beside their facts: Ollama's models and their sizes."""
    return {
        (plan.domain, plan.name): [size_question(declaration.settings.ollama.port)]
        for plan in declaration.topology.wants_gpu
        if OLLAMA_ROLE in plan.roles
    }


def plan(declaration: Declaration, live: Live | None) -> Declaration:
    """The declaration with its compute type chosen; says what fits.

    Raises:
        DeclarationError: it does not fit, or the card cannot run it, and ``stt:force`` is not set.
    """
    machine = declaration.stt_machine
    cards, ollama = None, list[OllamaModel]()
    if live and machine:
        cards = select_cards(machine.gpus, live.cards)
        if OLLAMA_ROLE in machine.roles:
            said = live.probed.get((machine.domain, machine.name), [])
            answers = [b64decode(answer).decode(errors="replace") for answer in said]
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
