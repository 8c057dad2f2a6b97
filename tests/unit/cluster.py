"""A host that is a cluster of three members, and how it is once a program has run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from host.read import Live, Member
from tests.unit.program import Program, host_after, host_with, words_of
from tests.unit.values import CARD

BARE, HARDWARE = host_with().resources, host_with(CARD).resources
#: node1 answers, and has no card; node2 and node3 are the group gpu, and node3 has a card.
MEMBERS = {
    "node1": Member("node1", "Online", ("default",), BARE),
    "node2": Member("node2", "Online", ("default", "gpu"), BARE),
    "node3": Member("node3", "Online", ("default", "gpu"), HARDWARE),
}
CLUSTER = replace(host_with(), members=MEMBERS, answers="node1")


def cluster_after(program: Program) -> Live:
    """The cluster once everything that a program asked for is done."""
    live = host_after(program, CLUSTER)
    objects: dict[tuple[str, str, str], Mapping[str, Any]] = dict(live.objects)
    for command in program.commands.values():
        words = words_of(command)
        if "--member" in words:
            project, member = (
                words[words.index(f"--{each}") + 1] for each in ("project", "member")
            )
            found = objects.pop(("volume", project, words[1]))
            objects["volume", project, f"{words[1]}/{member}"] = {**found, "location": member}
    for place, found in live.objects.items():
        if place[0] == "instance":
            objects[place] = {**found, "location": found["member"]}
    return replace(live, objects=objects)
