"""The host's cards for a stack: what ``gpu`` decides, with what the host says, in Pulumi's log."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import pulumi

from components.cards import cards_of, memory_of
from components.command import Host
from components.members import Placement
from declaration.memory import limit_mib
from declaration.problems import DeclarationError, Problem
from declaration.topology import MachinePlan
from engines import ENGINES
from engines.service import runs_on
from gpu.cards import Card, Holder
from gpu.devices import select_cards
from gpu.memory import stt_memory
from gpu.ownership import gpu_obstacles
from gpu.planner import GpuPlan, make_plan
from gpu.processes import holders
from host.cluster import member_of
from host.read import Live
from roles import ROLES
from roles.role import CardUser
from stack.checks import STT_ROLE
from stack.declare import Declaration, SttService


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


def plan(declaration: Declaration, host: Host) -> Declaration:
    """The declaration with the compute types chosen; says what fits.

    Services that are left alone are planned as if the host could not be read.

    Raises:
        DeclarationError: it does not fit, or the card cannot run it, and ``stt:force`` is not set.
    """
    live, placement = host.live, host.placement
    plans: list[GpuPlan] = []
    services: dict[str, list[Holder]] = {}
    running = holders(live.gpu_processes, _own_services(declaration)) if live else {}
    for service in declaration.services:
        cards, memory, answers = None, None, list[tuple[CardUser, list[str]]]()
        beside, now = list[Holder](), list[Holder]()
        if live and service.machine.domain not in placement.left:
            member = placement.of(service.machine.domain)
            cards = select_cards(service.machine.gpus, cards_of(live, member))
            first = f"{member} {cards[0].pci}" if cards else ""
            beside = services.setdefault(first, [])
            if service.machine.gpus:
                answers = list(_answers(declaration, cards, live, placement, member))
            else:
                answers = list(_answers_of(service.machine, live))
            memory = limit_mib(service.machine.memory, memory_of(live, member))
            here = running if member in ("", live.answers) else {}
            now = here.get(cards[0].pci if cards else "", [])
        models = [m for user, said in answers for m in user.models(declaration.settings, said)]
        loaded = [h for user, said in answers for h in user.loaded(declaration.settings, said)]
        busy = [*now, *loaded]
        former = _former_type(service, host)
        made = make_plan(declaration, service, cards, models, beside, busy, memory, former)
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


def _former_type(service: SttService, host: Host) -> str:
    """The compute type with which the state has a service on a card of this host; or empty."""
    noted = host.outputs(service.machine.resource(f"{STT_ROLE}/service")) or {}
    try:
        variables: Mapping[str, str] = json.loads(noted["stdin"])["spec"]["variables"]
        here = noted["triggers"][0] == str(host.connection)
    except (ValueError, LookupError, TypeError):
        return ""
    device, compute_type = runs_on(variables)
    return compute_type if here and device == "cuda" else ""


def _own_services(declaration: Declaration) -> list[tuple[str, str]]:
    """The services that are planned for, by container and unit; of any engine."""
    topology = declaration.topology
    stt = [(machine, unit) for machine in topology.with_role(STT_ROLE) for unit in ENGINES]
    others = [(machine, user.unit) for machine, user in _card_users(declaration)]
    return [(f"{each.domain}_{each.name}", unit) for each, unit in (*stt, *others)]


def _card_users(declaration: Declaration) -> Iterator[tuple[MachinePlan, CardUser]]:
    for machine in declaration.topology.machines:
        for role in machine.roles:
            if user := ROLES[role].card_user:
                yield machine, user


def _answers(
    declaration: Declaration, cards: list[Card], live: Live, placement: Placement, member: str
) -> Iterator[tuple[CardUser, list[str]]]:
    """What else uses one of the cards, with what it answers."""
    for machine, user in _card_users(declaration):
        if placement.of(machine.domain) != member:
            continue
        if set(cards) & set(select_cards(machine.gpus, cards_of(live, member))):
            yield user, _said(machine, live)


def _answers_of(machine: MachinePlan, live: Live) -> Iterator[tuple[CardUser, list[str]]]:
    """What else takes memory of a machine without a card, with what it answers."""
    for role in machine.roles:
        if user := ROLES[role].card_user:
            yield user, _said(machine, live)


def _said(machine: MachinePlan, live: Live) -> list[str]:
    state = live.machines.get((machine.domain, machine.name))
    return [json.dumps(each) for each in state.answers.values()] if state else []
