"""Graphics cards of a host, and which of CTranslate2's compute types each can run. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from agent.cards import NVIDIA_SMI_FIELDS
from declaration.gpu_devices import VENDOR_IDS, pci_of
from engines import Engine


@dataclass(frozen=True)
class Card:
    """A card. ``memory`` (MiB) and ``capability`` (CUDA's) are None if they are not known.

    ``pci`` is the address as ``gpu_devices.pci_of`` writes it; ``drm`` is what Incus calls ``id``;
    ``vendor_id`` and ``product_id`` are in lower case.
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


@dataclass(frozen=True)
class Holder:
    """Who else holds memory of a card, and how much, in MiB."""

    name: str
    mib: int

    def __str__(self) -> str:
        return f"{self.name} holds {self.mib / 1024:.1f} GiB"


def parse_cards(resources: Mapping[str, Any], nvidia_smi: str, in_machines: str = "") -> list[Card]:
    """The host's cards, from Incus' ``/1.0/resources`` and from nvidia-smi's CSV.

    Only Incus knows vendor and product; only nvidia-smi knows the memory. A card that Incus does
    not list (as in WSL) comes last.

    ``in_machines`` is what nvidia-smi says in machines that have cards: it counts where the host's
    own was not asked, and for cards that Incus lists; a machine cannot make one up.
    """
    cards: dict[str, Card] = {}
    for found in (resources.get("gpu") or {}).get("cards") or []:
        more = found.get("nvidia") or {}
        pci = pci_of(found.get("pci_address") or "")
        cards[pci] = Card(
            pci,
            (found.get("vendor_id") or "").lower(),
            (found.get("product_id") or "").lower(),
            str((found.get("drm") or {}).get("id", "")),
            more.get("model") or found.get("product") or "a card",
            capability=_capability(more.get("architecture") or ""),
            driver=more.get("nvrm_version") or "",
        )
    in_use = {pci: row for pci, row in _rows(in_machines).items() if pci in cards}
    for pci, (name, memory, capability, driver) in (in_use | _rows(nvidia_smi)).items():
        card = cards.get(pci, Card(pci, "10de"))
        cards[pci] = replace(
            card,
            name=name,
            memory=whole_number(memory),
            capability=_capability(capability) or card.capability,
            driver=driver,
        )
    return list(cards.values())


def _rows(nvidia_smi: str) -> dict[str, list[str]]:
    """What nvidia-smi says of each card, by its PCI address."""
    lines = ([value.strip() for value in line.split(",")] for line in nvidia_smi.splitlines())
    fields = NVIDIA_SMI_FIELDS.count(",") + 1
    return {pci_of(values[0]): values[1:] for values in lines if len(values) == fields}


def whole_number(text: str) -> int | None:
    """A number such as nvidia-smi prints; None: it is none. A machine may say anything."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None


def _capability(text: str) -> tuple[int, int] | None:
    major, _, minor = text.partition(".")
    found = whole_number(major), whole_number(minor)
    return None if found[0] is None or found[1] is None else (found[0], found[1])


def compute_types(engine: Engine, card: Card) -> tuple[str, ...]:
    """The compute types of an engine that a card really runs, the best first.

    CTranslate2 (``src/cuda/utils.cc``): float16 from compute capability 7.0, bfloat16 from 8.0,
    int8 on 6.1 and from 7.0; it silently replaces another type. Before 4.7 int8 fails on
    Blackwell (CTranslate2#1865, #1982).
    """
    types, capability = engine.compute_types["cuda"], card.capability
    if capability is None or engine.ctranslate2 is None:
        return types
    if capability < (7, 0):
        known = ("int8_float32", "float32") if capability == (6, 1) else ("float32",)
        return tuple(each for each in types if each in known)
    if capability < (8, 0):
        types = tuple(each for each in types if "bfloat16" not in each)
    if capability >= (12, 0) and engine.ctranslate2 < (4, 7):
        types = tuple(each for each in types if "int8" not in each)
    return types
