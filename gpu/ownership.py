"""What on the host keeps a machine from the card that it is to have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from declaration.gpu_devices import VENDOR_IDS, Vendor
from declaration.problems import Problem
from declaration.topology import MachinePlan
from gpu.cards import Card
from gpu.devices import select_cards, share_card
from stack.declare import Declaration

#: Instances of a host as Incus lists them, by project and name.
Instances = Mapping[tuple[str, str], Mapping[str, Any]]


def gpu_obstacles(
    declaration: Declaration,
    owners: Sequence[MachinePlan],
    cards: Sequence[Card],
    instances: Instances,
    others: Mapping[str, Sequence[Card]] | None = None,
    member: str = "",
) -> list[Problem]:
    """The problems of the machines that are to own a GPU of a host, which has these cards.

    In a cluster the host is a ``member``, and ``others`` are the cards of each.
    """
    problems = [
        problem
        for machine in owners
        for problem in _card_problems(
            machine, cards, declaration.settings.infra, member, others or {}
        )
    ]
    if owners and declaration.topology.gpu_policy == "exclusive":
        problems += _other_owners(declaration, instances, owners, cards)
    return problems


def _card_problems(
    machine: MachinePlan,
    cards: Sequence[Card],
    infra: str,
    member: str,
    others: Mapping[str, Sequence[Card]],
) -> list[Problem]:
    vendor = machine.gpu_vendor
    place = f"{infra}: {machine.place}.gpu"
    if not _of_vendor(vendor, cards):
        kind = "NVIDIA" if vendor == "nvidia" else "AMD"
        if member:
            having = [name for name, each in others.items() if _of_vendor(vendor, each)]
            message = (
                f"is true, and {machine.full_name} is to be on {member}, where Incus sees no "
                f"{kind} card (`incus info --resources --target {member}`). Members with one: "
                f"{', '.join(having) or 'none'}."
            )
            return [Problem(place, message)]
        return [
            Problem(
                "stt:infra",
                f"{infra} gives a GPU to {machine.name}; Incus sees no {kind} card on the host "
                "(`incus info --resources`). Use the stack cpu, or dev: make up STACK=cpu.",
            )
        ]
    selected = select_cards(machine.gpus, cards)
    if not selected:
        there = ", ".join(
            f"{card.name} at pci {card.pci} (vendorid {card.vendor_id}, productid "
            f"{card.product_id or 'unknown'})"
            for card in cards
        )
        return [
            Problem(
                place,
                f"no card of {member or 'the host'} is the one that is asked for. There are: "
                f"{there}.",
            )
        ]
    return [
        Problem(place, f"selects {card.name}, {_wrong_vendor(card)}.")
        for card in selected
        if VENDOR_IDS.get(card.vendor_id) != vendor
    ]


def _of_vendor(vendor: Vendor | None, cards: Sequence[Card]) -> bool:
    return any(card.nvidia == (vendor == "nvidia") for card in cards)


def _wrong_vendor(card: Card) -> str:
    """What to do about a card whose vendor the device does not name."""
    if VENDOR_IDS.get(card.vendor_id) == "amd":
        return (
            "an AMD card, and a device without vendorid means NVIDIA's. Select it by vendorid: "
            f'"{card.vendor_id}" and productid: "{card.product_id}"'
        )
    return "which neither the STT engines nor Ollama can use. Select a card of NVIDIA's or AMD's"


def _other_owners(
    declaration: Declaration,
    instances: Instances,
    owners: Sequence[MachinePlan],
    cards: Sequence[Card],
) -> list[Problem]:
    """Instances of the host that have an owner's card too, in whatever project."""
    ours = {(plan.domain, name) for plan in owners for name in (plan.name, plan.machine.formerly)}
    formerly = {plan.name: plan.former for plan in declaration.topology.domains}
    ours |= {(formerly[domain], name) for domain, name in ours}
    problems: list[Problem] = []
    for index, owner in enumerate(owners):
        others = sorted(
            place
            for place, found in instances.items()
            if place not in ours and share_card(owner.gpus, _gpus(found), cards)
        )
        others += [
            (each.domain, each.name)
            for each in owners[index + 1 :]
            if share_card(owner.gpus, each.gpus, cards)
        ]
        if others:
            names = ", ".join(f"{name} (project {project})" for project, name in others)
            problems.append(
                Problem(
                    f"{declaration.settings.infra}: global.gpu_policy",
                    f"is exclusive, {owner.name} is to own its card, and other instances of the "
                    f"host have it too: {names}. Take it from them (incus config device remove), "
                    "give each a card of its own by pci, or set gpu_policy: shared.",
                )
            )
    return problems


def _gpus(instance: Mapping[str, Any]) -> list[Mapping[str, str]]:
    devices = instance.get("expanded_devices") or instance.get("devices") or {}
    return [device for device in devices.values() if device.get("type") == "gpu"]
