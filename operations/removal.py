"""What ``destroy`` removes and what it leaves, by the stack's state, before it begins."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from declaration.connection import Connection, parse_connection
from host.client import Client, HostError

_COMMAND = "command:local:Command"
#: What the kinds of Incus objects are called, in the order of the list.
_WORDS = {"instance": "machine", "volume": "volume", "network": "bridge", "project": "project"}
#: Seconds that adding up a volume's files may take.
_DEADLINE = 60


@dataclass(frozen=True)
class _Object:
    """An Incus object of the state, in the order of its making."""

    kind: str
    name: str
    project: str
    pool: str
    connection: Connection
    kept: bool


def removal(state: Mapping[str, Any]) -> list[str]:
    """The lines to show; ``state`` is what ``pulumi stack export`` says. None: there is nothing."""
    objects = list(_objects(state))
    if not objects:
        return []
    gone = [each for each in objects if not each.kept]
    kept = [each for each in objects if each.kept]
    kept_projects = {each.project for each in kept}
    lines = [f"On {objects[0].connection}, destroy removes:"]
    for each in sorted(gone, key=lambda each: (list(_WORDS).index(each.kind), each.name)):
        if each.kind == "project" and each.name in kept_projects:
            continue
        lines.append(f"  {_named(each)}")
    lines.append("and the keys and passwords that this stack has made.")
    if kept:
        lines.append("It leaves, with all that is on them:")
        lines += [f"  {_named(each)}" for each in kept]
        lines += [f"  project {name}, which they are in" for name in sorted(kept_projects)]
    return lines


def _objects(state: Mapping[str, Any]) -> Iterator[_Object]:
    for resource in (state.get("deployment") or {}).get("resources") or []:
        inputs = resource.get("inputs") or {}
        triggers = inputs.get("triggers") or []
        if resource.get("type") != _COMMAND or len(triggers) < 3:
            continue
        if not isinstance(triggers[1], str) or triggers[1] not in _WORDS:
            continue
        words = shlex.split(str(inputs.get("create")))
        options = dict(itertools.pairwise(words))
        try:
            connection = parse_connection(str(triggers[0]))
        except ValueError:
            continue
        yield _Object(
            str(triggers[1]),
            str(triggers[2]),
            options.get("--project", ""),
            options.get("--pool", "default"),
            connection,
            kept=not inputs.get("delete"),
        )


def _named(each: _Object) -> str:
    if each.kind == "instance":
        return f"machine {each.project}/{each.name}, with all in it that is on no volume"
    if each.kind != "volume":
        return f"{_WORDS[each.kind]} {each.name}"
    size = _size(each)
    after = "" if each.kept else ", with all that is on it"
    return f"volume {each.project}/{each.name} ({size}){after}"


def _size(volume: _Object) -> str:
    """How much is on a volume: what Incus knows, else what a running machine that has it finds."""
    client = Client(volume.connection)
    path = f"/1.0/storage-pools/{volume.pool}/volumes/custom/{volume.name}"
    try:
        state = client.get(f"{path}/state?project={volume.project}")
        if state is None:
            return "not there"
        if used := ((state.get("usage") or {}).get("used")):
            return shown_size(int(used))
        for machine in client.get(f"/1.0/instances?recursion=1&project={volume.project}") or []:
            for device in (machine.get("expanded_devices") or {}).values():
                if device.get("source") == volume.name and machine["status"] == "Running":
                    words = ["exec", machine["name"], "--", "du", "-sxk", device["path"]]
                    said = client.call(*words, project=volume.project, deadline=_DEADLINE)
                    return shown_size(int(said.split()[0]) * 1024)
    except (HostError, ValueError, IndexError):
        pass
    return "size not known"


def shown_size(size: int) -> str:
    """Bytes, in the unit that is read easily."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
