"""The host's cards for a stack: what ``gpu`` decides, with what the host says, in Pulumi's log."""

from __future__ import annotations

import json

import pulumi

from components.cards import cards_of
from components.members import Placement
from declaration.problems import DeclarationError, Problem
from declaration.topology import MachinePlan
from engines import ENGINES
from gpu.cards import Card, Holder
from gpu.devices import select_cards
from gpu.memory import stt_memory
from gpu.ollama import OllamaModel, ollama_models, undeclared_models
from gpu.ownership import gpu_obstacles
from gpu.planner import GpuPlan, make_plan
from gpu.processes import holders
from host.cluster import member_of
from host.read import Live
from stack.checks import OLLAMA_ROLE, STT_ROLE
from stack.declare import Declaration


def obstacles(declaration: Declaration, live: Live, placement: Placement) -> list[Problem]:
    """What on the host keeps a machine from its card; each member of a cluster for itself."""
    problems: list[Problem] = []
    owners: dict[str, list[MachinePlan]] = {}
    for machine in declaration.topology.wants_gpu:
        if machine.domain not in placement.left:
            owners.setdefault(placement.of(machine.domain), []).append(machine)
    every = {name: cards_of(live, name) for name in live.members}
    for member, machines in owners.items():
        instances = {
            (project, name): found
            for (kind, project, name), found in live.objects.items()
            if kind == "instance" and member_of(found) == member
        }
        cards = every[member] if member else cards_of(live)
        problems += gpu_obstacles(declaration, machines, cards, instances, every, member)
    return problems


def plan(declaration: Declaration, live: Live | None, placement: Placement) -> Declaration:
    """The declaration with the compute types chosen; says what fits.

    What is left as it is is planned for as where the host cannot be read.

    Raises:
        DeclarationError: it does not fit, or the card cannot run it, and ``stt:force`` is not set.
    """
    plans: list[GpuPlan] = []
    services: dict[str, list[Holder]] = {}
    running = holders(live.gpu_processes, _own_services(declaration)) if live else {}
    for service in declaration.services:
        cards, ollama = None, list[OllamaModel]()
        beside, now = list[Holder](), list[Holder]()
        if live and service.machine.domain not in placement.left:
            member = placement.of(service.machine.domain)
            cards = select_cards(service.machine.gpus, cards_of(live, member))
            first = f"{member} {cards[0].pci}" if cards else ""
            beside = services.setdefault(first, [])
            ollama, loaded = _ollama(declaration, cards, live, placement, member)
            here = running if member in ("", live.answers) else {}
            now = [*here.get(cards[0].pci if cards else "", []), *loaded]
        made = make_plan(declaration, service, cards, ollama, beside, now)
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
    on_a_card = any(service.device == "cuda" for service in declaration.services)
    if declaration.settings.force and on_a_card and live and not problems:
        pulumi.log.warn(
            "stt:force: has no effect: what is declared fits, as far as that is known. Without it "
            "a change that does not fit is refused."
        )
    return declaration.with_compute_types([made.compute_type for made in plans])


def _own_services(declaration: Declaration) -> list[tuple[str, str]]:
    """The services that are planned for, by container and unit; of any engine."""
    topology = declaration.topology
    stt = [(machine, unit) for machine in topology.with_role(STT_ROLE) for unit in ENGINES]
    ollama = [(machine, "ollama") for machine in topology.with_role(OLLAMA_ROLE)]
    return [(f"{each.domain}_{each.name}", unit) for each, unit in (*stt, *ollama)]


def _ollama(
    declaration: Declaration, cards: list[Card], live: Live, placement: Placement, member: str
) -> tuple[list[OllamaModel], list[Holder]]:
    """The models of every Ollama that has one of the cards; and others that it has loaded now."""
    models, others = list[OllamaModel](), list[Holder]()
    names = declaration.settings.ollama.models
    for machine in declaration.topology.with_role(OLLAMA_ROLE):
        if placement.of(machine.domain) != member:
            continue
        if set(cards) & set(select_cards(machine.gpus, cards_of(live, member))):
            state = live.machines.get((machine.domain, machine.name))
            answers = [json.dumps(answer) for answer in state.answers.values()] if state else []
            models += ollama_models(names, answers)
            others += undeclared_models(names, answers)
    return models, others
