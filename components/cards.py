"""The cards and the memory that the host has, or a member of its cluster."""

from __future__ import annotations

from gpu.cards import Card, parse_cards
from host.read import Live


def cards_of(live: Live, member: str = "") -> list[Card]:
    """The cards of the host, or of a member of the cluster.

    nvidia-smi runs only where Incus is asked; of other members' cards Incus alone tells.
    """
    if not member:
        return parse_cards(live.resources, live.nvidia_smi)
    said = live.nvidia_smi if member == live.answers else ""
    return parse_cards(live.members[member].resources, said)


def memory_of(live: Live, member: str = "") -> int:
    """The bytes of memory of the host, or of a member of the cluster; 0: it does not tell."""
    resources = live.members[member].resources if member else live.resources
    return int((resources.get("memory") or {}).get("total") or 0)
