"""Graphics cards of a host, and which of CTranslate2's compute types each can run. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from declaration.engines import EngineFacts
from declaration.gpu_devices import VENDOR_IDS, pci_of, vendor_of


@dataclass(frozen=True)
class Card:
    """A card. ``memory`` in MiB and ``capability`` (CUDA's) are None where nobody could tell.

    ``pci`` is the address as ``gpu_devices.pci_of`` writes it; ``drm`` is what Incus calls ``id``.
    """

    pci: str
    vendor_id: str
    product_id: str = ""
    drm: str = ""
    name: str = "a card"
    memory: int | None = None
    capability: tuple[int, int] | None = None
    driver: str = ""

    @property
    def nvidia(self) -> bool:
        """Whether it is one of NVIDIA's."""
        return VENDOR_IDS.get(self.vendor_id) == "nvidia"

    def __str__(self) -> str:
        told = [f"{self.memory / 1024:.1f} GiB" if self.memory else "memory unknown"]
        if self.capability:
            told.append("compute capability {}.{}".format(*self.capability))
        if self.driver:
            told.append(f"driver {self.driver}")
        return f"{self.name} ({', '.join(told)})"


def seen_by(devices: Sequence[Mapping[str, str]], cards: Sequence[Card]) -> list[Card]:
    """The cards that GPU devices give to a machine, by their PCI addresses, as CUDA is told to.

    The memory of a MIG instance is a part of its card's, and not known here.
    """
    found: list[Card] = []
    for card in sorted(cards, key=lambda each: each.pci):
        for device in devices:
            if _matches(device, card) and card not in found:
                part = replace(card, name=f"MIG instance of {card.name}", memory=None)
                found.append(part if device.get("gputype") == "mig" else card)
    return found


def _matches(device: Mapping[str, str], card: Card) -> bool:
    if "pci" in device:
        return pci_of(device["pci"]) == card.pci
    if "id" in device:
        return device["id"] == card.drm
    if "vendorid" in device:
        same = device["vendorid"].lower() == card.vendor_id
        return same and device.get("productid", card.product_id).lower() == card.product_id
    # Without a selector Incus gives all; of these, the vendor's are what can be used.
    return VENDOR_IDS.get(card.vendor_id) == vendor_of(device)


#: What nvidia-smi is asked, in this order.
NVIDIA_SMI_FIELDS = "pci.bus_id,name,memory.total,compute_cap,driver_version"


def parse_cards(resources: Mapping[str, Any], nvidia_smi: str) -> list[Card]:
    """The host's cards, from Incus' ``/1.0/resources`` and from nvidia-smi's CSV.

    Incus alone knows vendor and product; nvidia-smi alone the memory. A card that Incus does not
    list (as in WSL) comes last.
    """
    cards: dict[str, Card] = {}
    for found in (resources.get("gpu") or {}).get("cards") or []:
        more = found.get("nvidia") or {}
        pci = pci_of(found.get("pci_address") or "")
        cards[pci] = Card(
            pci,
            found.get("vendor_id") or "",
            found.get("product_id") or "",
            str((found.get("drm") or {}).get("id", "")),
            more.get("model") or found.get("product") or "a card",
            capability=_capability(more.get("architecture") or ""),
            driver=more.get("nvrm_version") or "",
        )
    for line in nvidia_smi.splitlines():
        values = [value.strip() for value in line.split(",")]
        if len(values) != len(NVIDIA_SMI_FIELDS.split(",")):
            continue
        pci, name, memory, capability, driver = (pci_of(values[0]), *values[1:])
        cards[pci] = replace(
            cards.get(pci, Card(pci, "10de")),
            name=name,
            memory=int(memory) if memory.isdigit() else None,
            capability=_capability(capability) or (cards[pci].capability if pci in cards else None),
            driver=driver,
        )
    return list(cards.values())


def _capability(text: str) -> tuple[int, int] | None:
    major, _, minor = text.partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else None


def compute_types(facts: EngineFacts, card: Card) -> tuple[str, ...]:
    """The compute types of an engine that a card runs as such, the best first.

    CTranslate2 (``src/cuda/utils.cc``): float16 from compute capability 7.0, bfloat16 from 8.0,
    int8 on 6.1 and from 7.0; it replaces another type without a word. Before 4.7 int8 fails on
    Blackwell (CTranslate2#1865, #1982).
    """
    types, capability = facts.compute_types["cuda"], card.capability
    if capability is None or facts.ctranslate2 is None:
        return types
    if capability < (7, 0):
        known = ("int8_float32", "float32") if capability == (6, 1) else ("float32",)
        return tuple(each for each in types if each in known)
    if capability < (8, 0):
        types = tuple(each for each in types if "bfloat16" not in each)
    if capability >= (12, 0) and facts.ctranslate2 < (4, 7):
        types = tuple(each for each in types if "int8" not in each)
    return types
