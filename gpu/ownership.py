"""What on the host keeps a machine from the card that it is to have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from declaration.gpu_devices import VENDOR_IDS
from declaration.problems import Problem
from declaration.topology import MachinePlan
from gpu.cards import Card
from gpu.devices import select_cards
from stack.declare import Declaration

#: Instances of a host as Incus lists them, by project and name.
Instances = Mapping[tuple[str, str], Mapping[str, Any]]


def gpu_obstacles(
    declaration: Declaration,
    owners: Sequence[MachinePlan],
    cards: Sequence[Card],
    instances: Instances,
) -> list[Problem]:
    """The problems of the machines that are to own a GPU of a host, which has these cards."""
    problems = [
        problem
        for machine in owners
        for problem in _card_problems(machine, cards, declaration.settings.infra)
    ]
    if owners and declaration.topology.gpu_policy == "exclusive":
        problems += _other_owners(declaration, instances, owners)
    return problems


def _card_problems(machine: MachinePlan, cards: Sequence[Card], infra: str) -> list[Problem]:
    vendor = machine.gpu_vendor
    place = f"{infra}: {machine.place}.gpu"
    if not any(card.nvidia == (vendor == "nvidia") for card in cards):
        return [
            Problem(
                "stt:infra",
                f"{infra} gives a GPU to {machine.name}; Incus sees no "
                f"{'NVIDIA' if vendor == 'nvidia' else 'AMD'} card on the host "
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
            Problem(place, f"no card of the host is the one that is asked for. There are: {there}.")
        ]
    return [
        Problem(place, f"selects {card.name}, {_wrong_vendor(card)}.")
        for card in selected
        if VENDOR_IDS.get(card.vendor_id) != vendor
    ]


def _wrong_vendor(card: Card) -> str:
    """What to do about a card whose vendor the device does not name."""
    if VENDOR_IDS.get(card.vendor_id) == "amd":
        return (
            "an AMD card, and a device without vendorid means NVIDIA's. Select it by vendorid: "
            f'"{card.vendor_id}" and productid: "{card.product_id}"'
        )
    return "which neither the STT engines nor Ollama can use. Select a card of NVIDIA's or AMD's"


def _other_owners(
    declaration: Declaration, instances: Instances, owners: Sequence[MachinePlan]
) -> list[Problem]:
    """Instances of the host that have a GPU too, in whatever project."""
    ours = {(plan.domain, name) for plan in owners for name in (plan.name, plan.machine.formerly)}
    formerly = {plan.name: plan.former for plan in declaration.topology.domains}
    ours |= {(formerly[domain], name) for domain, name in ours}
    others = sorted(
        place for place, found in instances.items() if place not in ours and _has_gpu(found)
    )
    others += [(each.domain, each.name) for each in owners[1:]]
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


def _has_gpu(instance: Mapping[str, Any]) -> bool:
    devices = instance.get("expanded_devices") or instance.get("devices") or {}
    return any(device.get("type") == "gpu" for device in devices.values())
