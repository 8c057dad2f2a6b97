"""Who holds the device's memory (``vram``), and freeing it (``flush``)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from declaration.topology import MachinePlan
from engines.service import header_file
from gpu.processes import CGROUP
from operations.host import on_host, run_program
from stack.checks import OLLAMA_ROLE, STT_ROLE
from stack.declare import Declaration

_MIB = 2**20
#: The host's cards, and the processes on them with their cgroups: instance and unit.
_CARDS = """command -v nvidia-smi >/dev/null 2>&1 || exit 0
smi() { nvidia-smi "$@" --format=csv,noheader,nounits </dev/null 2>/dev/null; }
smi --query-gpu=uuid,name,memory.used,memory.total | sed 's/^/card, /'
smi --query-compute-apps=gpu_uuid,pid,used_memory | while IFS=', ' read -r card pid used; do
  echo "process, $card, $pid, $used, $(tail -n 1 "/proc/$pid/cgroup" 2>/dev/null)"
done
"""
#: Runs in each machine.
PROGRAM = Path(__file__).parent / "machine" / "memory.py"


def _machines(declaration: Declaration, restart: bool) -> Iterator[tuple[MachinePlan, str]]:
    """The machines with an STT service or Ollama, each with its script's question."""
    settings = declaration.settings
    host = str(settings.host)
    address = "127.0.0.1" if host == "0.0.0.0" else host  # noqa: S104  # compared, not bound
    for machine in declaration.topology.machines:
        stt = STT_ROLE in machine.roles and settings.enabled
        ollama = OLLAMA_ROLE in machine.roles
        if stt or ollama:
            units = {"ollama": "ollama"} if ollama and restart else {}
            if stt and restart:
                units["stt"] = declaration.engine_services[machine.full_name].service.unit
            asked = {
                "stt": f"http://{address}:{settings.port}" if stt else "",
                "ollama": f"http://127.0.0.1:{settings.ollama.port}" if ollama else "",
                "authorization": header_file(settings),
                "restart": units,
            }
            yield machine, json.dumps(asked)


def ask(declaration: Declaration, verb: str, *, restart: bool = False) -> dict[str, Any]:
    """What each machine answers to ``status`` or ``flush``, by its full name.

    With ``restart`` a service that does not unload is restarted.

    Raises:
        OperationError: a machine does not run, or the host cannot be reached.
    """
    connection = declaration.settings.host_connection
    return {
        machine.full_name: json.loads(run_program(connection, machine, PROGRAM, [verb, asked]))
        for machine, asked in _machines(declaration, restart)
    }


def cards(said: str) -> list[str]:
    """The host's cards and who holds how much of each, from the lines of ``_CARDS``."""
    lines: list[str] = []
    rows = [[part.strip() for part in line.split(",", 5)] for line in said.splitlines()]
    for row in (row for row in rows if row[0] == "card" and len(row) >= 5):
        _, uuid, name, used, total = row[:5]
        lines.append(f"{name}: {used} of {total} MiB in use")
        for process in (each for each in rows if each[0] == "process" and each[1] == uuid):
            _, _, pid, mib, *cgroup = process
            place = CGROUP.search(",".join(cgroup))
            who = f"{place['instance']}: {place['unit']}" if place else f"process {pid} of the host"
            lines.append(f"  {mib} MiB  {who}")
    return lines


def report(declaration: Declaration) -> list[str]:
    """The lines of `make vram`."""
    settings = declaration.settings
    lines: list[str] = []
    if settings.host_connection.kind != "incus":
        lines += cards(on_host(settings.host_connection, _CARDS))
    lines = lines or ["the host's cards: none that nvidia-smi shows there"]
    for name, said in ask(declaration, "status").items():
        if said["stt"]:
            lines.append(
                f"{name}: STT ({settings.engine}): {_stt(said['stt'], settings.keepAlive)}"
            )
        if said["ollama"]:
            lines.append(f"{name}: Ollama: {_ollama(said['ollama'])}")
    return lines


def _stt(said: dict[str, Any], keep_alive: str) -> str:
    if not said["answers"]:
        return "does not answer"
    if said["models"] is None:
        return "does not say what it has loaded"
    if not said["models"]:
        return "nothing loaded"
    unloads = "never unloads" if keep_alive == "-1" else f"unloads {keep_alive} after its last use"
    return f"{', '.join(said['models'])} loaded, {unloads}"


def _ollama(said: dict[str, Any]) -> str:
    if not said["answers"]:
        return "does not answer"
    if not said["models"]:
        return "nothing loaded"
    return "; ".join(
        f"{model['name']}: {round((model['size_vram'] or 0) / _MIB)} MiB on cards, "
        f"{round((model['size'] - (model['size_vram'] or 0)) / _MIB)} MiB in the machine's memory, "
        f"until {model['expires_at']}"
        for model in said["models"]
    )


_FLUSHED = {
    "unloaded": "unloaded",
    "nothing": "had nothing loaded",
    "silent": "does not answer",
    "cannot": "cannot unload: restart its service in the machine to free its memory",
    "busy": "is busy and kept its model: try again",
    "stays": "kept a model: try again",
    "restarted": "was restarted, because it did not unload",
}


def flush(declaration: Declaration, *, restart: bool = False) -> tuple[list[str], bool]:
    """The lines of `make flush`, and whether all is free.

    With ``restart`` a service that does not unload is restarted.

    Raises:
        OperationError: a machine does not run, or the host cannot be reached.
    """
    lines: list[str] = []
    free = True
    for name, said in ask(declaration, "flush", restart=restart).items():
        for service, what in said.items():
            shown = "Ollama" if service == "ollama" else "STT"
            lines.append(f"{name}: {shown} {_FLUSHED[what]}")
            free = free and what in ("unloaded", "nothing", "restarted")
    return lines, free
