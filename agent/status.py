"""What a machine's services do now, for ``make status``. Nothing is changed."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any, TypeVar

from agent import record, systemd
from agent.kinds.kind import Kind
from agent.kinds.service import Service
from agent.kinds.transcription import Transcription
from agent.machine import Machine, StepError
from agent.specs import SpecError, decode

AnyKind = TypeVar("AnyKind", bound=Kind)
#: Seconds that reading a journal may take, and how many of its lines are searched for an error.
_DEADLINE, _LINES = 30, 5000
#: A request that does work, in the log of uvicorn, and in Ollama's.
_REQUESTS = (
    re.compile(
        r'(?:(?P<client>[a-z0-9-]+)@\S+ - )?"POST (?P<path>/\S+) HTTP/[\d.]+" (?P<status>\d{3})'
    ),
    re.compile(r'\| (?P<status>\d{3}) \|.*\| POST +"(?P<path>/[^"]+)"'),
)
_WORK = re.compile(r"/(v1/(audio|chat|completions|embeddings)|api/(chat|generate|embed))")
_ERROR = re.compile(r"\b(ERROR|CRITICAL|FATAL|panic|Traceback|[A-Z]\w*Error:)")
#: The report of a gateway's watcher: its servers, and what became of the requests.
_GATEWAY = "gateway"
#: Characters of an error's line.
_SHOWN = 300


def status(machine: Machine) -> dict[str, Any]:
    """Every service that was applied here, by its step; what it runs on where it has proven it."""
    systemd.sync_journal(machine)
    services = {step: _service(machine, each) for step, each in recorded(machine, Service).items()}
    for step, kind in recorded(machine, Transcription).items():
        role = step.partition("/")[0]
        for name, found in services.items():
            # One that does not know its device is in front of those that do.
            if name.partition("/")[0] == role and found["state"] == "active" and kind.device:
                found |= {"model": kind.model, **_runs_on(machine, kind)}
    return {"services": services}


def recorded(machine: Machine, cls: type[AnyKind]) -> dict[str, AnyKind]:
    """The steps of a kind that were applied here and hold no secret, as far as they are known."""
    found: dict[str, AnyKind] = {}
    for each in record.records(machine):
        if each.kind == cls.kind and not each.secret:
            try:
                found[each.step] = decode(cls, dict(each.spec), lenient=True)
            except SpecError:
                continue  # of another version of this program; drift names it
    return found


def _service(machine: Machine, service: Service) -> dict[str, Any]:
    unit = service.unit_name
    state = systemd.show(machine, unit, "ActiveEnterTimestampMonotonic,MemoryCurrent")
    found: dict[str, Any] = {
        "unit": unit,
        "state": state.get("ActiveState", "unknown"),
        "port": service.port,
        "restarts": _number(state.get("NRestarts")),
        "memory": _number(state.get("MemoryCurrent")),
        "seconds": None,
    }
    entered = _number(state.get("ActiveEnterTimestampMonotonic"))
    if found["state"] == "active" and entered:
        found["seconds"] = round(time.clock_gettime(time.CLOCK_MONOTONIC) - entered / 1e6)
    invocation = state.get("InvocationID", "")
    lines = _journal(machine, [f"_SYSTEMD_INVOCATION_ID={invocation}"]) if invocation else []
    found |= _requests(lines)
    recent = _journal(machine, ["-u", unit, "-n", str(_LINES), "-o", "short-iso"])
    errors = [line for line in recent if _ERROR.search(line)]
    found["last_error"] = errors[-1][:_SHOWN] if errors else ""
    if _GATEWAY in service.reports and found["state"] == "active":
        found[_GATEWAY] = service.answers(machine)[_GATEWAY]
    return found


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None


def _journal(machine: Machine, words: Sequence[str]) -> list[str]:
    argv = ["journalctl", "--no-pager", "-o", "cat", *words]
    try:
        return machine.run(argv, check=False, deadline=_DEADLINE).stdout.splitlines()
    except StepError:  # it is too long
        return []


def _requests(lines: Sequence[str]) -> dict[str, Any]:
    """How many requests for work there were, and how many of them failed; and of each client."""
    total = {"requests": 0, "failed": 0}
    clients: dict[str, dict[str, int]] = {}
    for found in (pattern.search(line) for line in lines for pattern in _REQUESTS):
        if not found or not _WORK.match(found["path"]):
            continue
        counts = [total]
        if client := found.groupdict().get("client"):
            counts.append(clients.setdefault(client, {"requests": 0, "failed": 0}))
        for each in counts:
            each["requests"] += 1
            each["failed"] += int(found["status"]) >= 400
    return {**total, "clients": clients}


def _runs_on(machine: Machine, kind: Transcription) -> dict[str, str]:
    try:
        return dict(kind.runs_on(machine))
    except (StepError, OSError):
        return {}
