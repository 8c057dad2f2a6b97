"""The cards and the memory that the host has, or a member of its cluster."""

from __future__ import annotations

from gpu.cards import Card, parse_cards
from host.cluster import member_of
from host.read import Live


def cards_of(live: Live, member: str = "") -> list[Card]:
    """The cards of the host, or of a member of the cluster.

    Of the host itself nvidia-smi is asked only where that is not reached through Incus, and of a
    cluster's on the member that answers. Elsewhere the machines tell of the cards that they have.
    """
    resources = live.members[member].resources if member else live.resources
    in_machines = "".join(
        state.cards
        for (project, name), state in live.machines.items()
        if state.cards and member_of(live.find("instance", name, project) or {}) == member
    )
    return parse_cards(resources, live.nvidia_smi if live.is_of(member) else "", in_machines)


def memory_of(live: Live, member: str = "") -> int:
    """The bytes of memory of the host, or of a member of the cluster; 0: it does not tell."""
    resources = live.members[member].resources if member else live.resources
    return int((resources.get("memory") or {}).get("total") or 0)
