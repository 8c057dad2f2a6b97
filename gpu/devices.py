"""Which cards of a host the GPU devices of a machine select, as Incus does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from declaration.gpu_devices import VENDOR_IDS, pci_of, vendor_of
from gpu.cards import Card


def select_cards(devices: Sequence[Mapping[str, str]], cards: Sequence[Card]) -> list[Card]:
    """The cards that GPU devices give to a machine, by their PCI addresses, as CUDA orders them.

    The memory of a MIG instance is a part of its card's, and not known here.
    """
    found: list[Card] = []
    for card in sorted(cards, key=lambda each: each.pci):
        for device in devices:
            if _selects(device, card) and card not in found:
                part = replace(card, name=f"MIG instance of {card.name}", memory=None)
                found.append(part if device.get("gputype") == "mig" else card)
    return found


def _selects(device: Mapping[str, str], card: Card) -> bool:
    """Incus' ``gpuSelected`` (internal/server/device/gpu.go): every key that is given must match.

    Incus compares texts as they are. infra.yml's ids were put in lower case when it was read, and
    Incus' own are.
    """
    matches = {
        "pci": pci_of(device.get("pci", "")) == card.pci,
        "id": device.get("id") == card.drm,
        "vendorid": device.get("vendorid", "").lower() == card.vendor_id,
        "productid": device.get("productid", "").lower() == card.product_id,
    }
    if given := [key for key in matches if key in device]:
        return all(matches[key] for key in given)
    # Without a selector Incus gives all cards; the vendor's are those that can be used.
    return VENDOR_IDS.get(card.vendor_id) == vendor_of(device)
