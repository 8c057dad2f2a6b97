"""Which cards of a host the GPU devices of a machine select, as Incus does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from declaration.gpu_devices import SELECTORS, VENDOR_IDS, may_be_same, pci_of, vendor_of
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


def share_card(
    ones: Sequence[Mapping[str, str]],
    others: Sequence[Mapping[str, str]],
    cards: Sequence[Card],
) -> bool:
    """Whether GPU devices of two machines give them the same card, or the same part of one."""
    return any(
        may_be_same(one, other) and _cards(one, cards) & _cards(other, cards)
        for one in ones
        for other in others
    )


def _cards(device: Mapping[str, str], cards: Sequence[Card]) -> set[str]:
    """The PCI addresses of the cards that a device gives; a name of CDI may mean any.

    Without a selector it is every card, those that the machine cannot use included.
    """
    named = any(key in device for key in SELECTORS) and device.get("id", "0").isdigit()
    return {card.pci for card in cards if not named or _selects(device, card)}


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
