"""`make measure-vram`: what models really take on this host, beside what the catalogue says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from agent.kinds.service import Service
from engines import ENGINES
from engines.ctranslate2 import OPENMP
from engines.engine import Engine
from engines.service import USER
from engines.whisper_models import WHISPER_MODELS
from operations.host import OperationError, run_program
from operations.machine.measure_whisper import SHAPES
from operations.memory import flush
from stack.declare import Declaration

TYPES = {"cuda": "float16,int8_float16,int8,float32", "cpu": "int8,float32"}
PROGRAM = Path(__file__).parent / "machine" / "measure_whisper.py"
#: Seconds for all of it: large models take their time to be made.
LIMIT = 3600


def models_to_measure(current: str, asked: str) -> list[str]:
    """The models that were asked for; else the one that the stack has, or tiny.

    Raises:
        OperationError: one has no known shape.
    """
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
    if not declaration.services:
        raise OperationError("the topology has no machine with the role stt_server")
    service = declaration.services[0]
    machine, device = service.machine, service.device
    names = models_to_measure(service.model.name, asked)
    lines = flush(declaration)[0]
    venv = _venv(declaration.engine, declaration.engine_services[machine.full_name].service)
    said = run_program(
        declaration.settings.host_connection,
        machine,
        PROGRAM,
        [
            *("--device", device, "--models", ",".join(names), "--types", TYPES[device]),
            # A CPU is slow, and its memory is the same after one.
            *("--windows", "3" if device == "cuda" else "1"),
        ],
        python=f"{venv}/bin/python",
        user=USER,  # what the engine's packages bring runs as nobody else
        environment=[
            "ORT_DISABLE_TELEMETRY=1",
            *(f"{name}={value}" for name, value in OPENMP.items()),
            *([f"LD_LIBRARY_PATH={venv}/lib/cuda"] if device == "cuda" else []),
        ],
        deadline=LIMIT,
    )
    return [*lines, *table(said.splitlines(), device)]


def _venv(engine: Engine, unit: Service) -> str:
    """The Python environment of the engine that is installed.

    Raises:
        OperationError: it does not have CTranslate2.
    """
    if engine.ctranslate2 is None:
        engines = " or ".join(each.name for each in ENGINES.values() if each.ctranslate2)
        raise OperationError(f"stt:engine is {engine.name}, and models are measured with {engines}")
    return str(unit.sections["Service"]["ExecStart"]).partition("/bin/")[0]


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
        figure = (known.gpu if device == "cuda" else known.cpu).get(found["type"])
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
