"""What a preview says of a restart of the STT service, where no figure of its engine is known."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agent.kinds.secret_files import SecretFiles
from agent.kinds.service import Service
from components.command import Host
from declaration.step import Step
from engines import ENGINES
from engines.restart import last_restart, restart_words
from engines.service import SERVICE


def restart_notes(host: Host, steps: Sequence[Step], engine: str) -> Iterator[str]:
    """A line for each machine whose STT service restarts, and how long that took there last.

    None for engines whose figure is in docs/changes.md, and that hand their port over.
    """
    for step in steps:
        outputs = host.outputs(step.name)
        if step.role != SERVICE or not isinstance(step.spec, Service) or outputs is None:
            continue
        before = _spec(outputs)
        unit = str(before.get("unit", ""))
        if not _restarts(host, step, steps, before) or all(map(_has_figure, (unit, engine))):
            continue
        same = unit == step.spec.unit
        seconds = last_restart(outputs.get("stdout")) if same else None
        yield f"{step.machine[1]}: {restart_words((unit, engine), seconds)}"


def _has_figure(engine: str) -> bool:
    found = ENGINES.get(engine)
    return found is not None and found.holds_port and bool(found.restart)


def _restarts(host: Host, step: Step, steps: Sequence[Step], before: Mapping[str, Any]) -> bool:
    """Whether the step, its machine or its secrets differ from the state."""
    if host.is_left(step.name):
        return False
    drifted = any(
        each.name in host.drift
        for each in steps
        if each == step or (each.machine == step.machine and _is_its_secrets(each, step))
    )
    return drifted or before != json.loads(step.text())["spec"]


def _is_its_secrets(each: Step, service: Step) -> bool:
    return isinstance(each.spec, SecretFiles) and each.spec.service == service.part


def _spec(outputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """The spec that the state has."""
    try:
        spec = json.loads(str(outputs.get("stdin")))["spec"]
    except (ValueError, KeyError, TypeError):
        return {}
    return spec if isinstance(spec, Mapping) else {}
