"""`make measure-vram`: what models really take on this host, beside what the catalogue says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from components.templates import render
from engines.whisper_models import WHISPER_MODELS
from operations.host import OperationError, in_machine
from operations.measure_whisper import SHAPES
from operations.memory import flush
from stack.checks import STT_ROLE
from stack.declare import Declaration

TYPES = {"cuda": "float16,int8_float16,int8,float32", "cpu": "int8,float32"}
UNITS = ("speaches", "faster-whisper")
#: Seconds for all: large models take their time to be made.
LIMIT = 3600


def models_to_measure(declaration: Declaration, asked: str) -> list[str]:
    """The models that were asked for; else the one that the stack has, or tiny.

    Raises:
        OperationError: one has no known shape.
    """
    current = declaration.model.name
    names = asked.split() or [current if current in SHAPES else "tiny"]
    if unknown := [name for name in names if name not in SHAPES]:
        raise OperationError(
            f"MODELS: {', '.join(unknown)} cannot be measured. Allowed: {', '.join(SHAPES)}"
        )
    return names


def measure(declaration: Declaration, asked: str) -> list[str]:
    """The lines of the table. The models on the card are unloaded first.

    Raises:
        OperationError: there is no STT machine, or it does not run.
    """
    machine = declaration.topology.having(STT_ROLE)
    if machine is None:
        raise OperationError("the topology has no machine with the role stt_server")
    names = models_to_measure(declaration, asked)
    device = declaration.device_of(machine)
    lines = flush(declaration)[0]
    script = render(
        "operations/measure.sh.j2",
        units=UNITS,
        program=(Path(__file__).parent / "measure_whisper.py").read_text(encoding="utf-8"),
        words=[
            *("--device", device, "--models", ",".join(names), "--types", TYPES[device]),
            # A CPU is slow, and its memory is the same after one.
            *("--windows", "3" if device == "cuda" else "1"),
        ],
        variables=[("LD_LIBRARY_PATH", "/lib/cuda")] if device == "cuda" else [],
    )
    said = in_machine(declaration.settings.where, machine, script, LIMIT)
    return [*lines, *table(said.splitlines(), device)]


def table(said: Sequence[str], device: str) -> list[str]:
    """What was measured, beside what the catalogue says and where it has that from."""
    head = "{:<18} {:<14} {:>10} {:>10}  {:>8}  {}"
    lines = [head.format("model", "type", "measured", "catalogue", "RTFx", "catalogue's source")]
    for line in said:
        try:
            found = json.loads(line)
        except ValueError:
            continue
        known = WHISPER_MODELS[found["model"]]
        figure = known.memory(device).get(found["type"])
        if "error" in found:
            lines.append(f"{found['model']:<18} {found['type']:<14} {found['error']}")
            continue
        lines.append(
            head.format(
                found["model"],
                found["type"],
                f"{found['mib']} MiB",
                f"{figure.mib} MiB" if figure else "-",
                found["rtfx"],
                figure.source.value if figure else "-",
            )
        )
    return lines
