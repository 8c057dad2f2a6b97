"""``make status``: what runs, since when, on what, and what went wrong."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TextIO

from declaration.topology import MachinePlan
from host.client import Client, HostError
from host.read import AGENT_WORDS
from operations.host import not_running
from stack.declare import Declaration

_GREEN, _YELLOW, _RED, _PLAIN = "\x1b[32m", "\x1b[33m", "\x1b[31m", "\x1b[0m"
_COLOURS = {"active": _GREEN, "activating": _YELLOW, "reloading": _YELLOW}
_WORDS = {"active": "running", "activating": "starting"}
#: Seconds that a machine may take.
_DEADLINE = 120


def ask(declaration: Declaration) -> dict[str, Any]:
    """What each machine says, by its full name: ``services``, or why there is no answer."""
    client = Client(declaration.settings.host_connection)
    machines = list(declaration.topology.machines)
    with ThreadPoolExecutor(4) as pool:
        answers = pool.map(lambda machine: _ask(client, machine), machines)
    return {
        machine.full_name: {"address": str(machine.address), **answer}
        for machine, answer in zip(machines, answers, strict=True)
    }


def _ask(client: Client, machine: MachinePlan) -> dict[str, Any]:
    words = ["exec", machine.name, "--", *AGENT_WORDS, "status"]
    try:
        found: dict[str, Any] = json.loads(
            client.call(*words, project=machine.domain, deadline=_DEADLINE)
        )
    except (HostError, ValueError) as error:
        said = getattr(error, "user_message", "it said nothing").strip().splitlines()
        why = not_running(client, machine) or (said[-1] if said else "it said nothing")
        return {"services": {}, "error": why}
    return found


def works(answers: dict[str, Any]) -> bool:
    """Whether every machine answers, every service runs, and every gateway has a server."""
    return all(
        "error" not in answer and all(_works(each) for each in answer["services"].values())
        for answer in answers.values()
    )


def _works(each: dict[str, Any]) -> bool:
    servers = (each.get("gateway") or {}).get("servers", [])
    return each["state"] == "active" and (
        not servers or any(server["serving"] for server in servers)
    )


def coloured(stream: TextIO) -> bool:
    """Whether a terminal shows it, and nobody has said NO_COLOR."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def lines(answers: dict[str, Any], colour: bool) -> list[str]:
    """The lines to show."""
    found: list[str] = []
    for name, answer in answers.items():
        found.append(f"{name}  {answer['address']}")
        if "error" in answer:
            text = f"does not answer: {answer['error']}"
            found.append(f"  {_paint(text, _RED, colour)}")
        elif not answer["services"]:
            found.append("  no services")
        for each in answer["services"].values():
            found += _service(each, colour)
    return found


def _service(each: dict[str, Any], colour: bool) -> list[str]:
    state = each["state"]
    shown = _paint(_WORDS.get(state, state), _COLOURS.get(state, _RED), colour)
    parts = [shown + (f" for {age(each['seconds'])}" if each["seconds"] is not None else "")]
    parts.append(f"port {each['port']}")
    if each["memory"]:
        parts.append(f"{each['memory'] / 2**30:.1f} GiB of memory")
    if each.get("model"):
        kind = f" in {each['compute_type']}" if each.get("compute_type") else ""
        device = f" on {each['device']}" if each.get("device") else ""
        parts.append(f"{each['model']}{kind}{device}")
    if each["requests"]:
        failed = f", {each['failed']} of them failed" if each["failed"] else ""
        noun = "request" if each["requests"] == 1 else "requests"
        parts.append(f"{each['requests']} {noun} since its start{failed}")
    if each["restarts"]:
        text = f"started again {each['restarts']} times by systemd"
        parts.append(_paint(text, _YELLOW, colour))
    found = [f"  {each['unit'].removesuffix('.service')}: {', '.join(parts)}"]
    if each.get("clients"):
        found.append(f"    by client: {_clients(each)}")
    if each.get("gateway"):
        found += gateway_lines(each["gateway"], colour)
    if each["last_error"]:
        found.append(f"    last error: {each['last_error']}")
    return found


def _clients(each: dict[str, Any]) -> str:
    """The requests of the clients with keys of their own, and how many others there were."""
    parts = [
        f"{name} {count['requests']}" + (f" ({count['failed']} failed)" if count["failed"] else "")
        for name, count in sorted(each["clients"].items())
    ]
    others = each["requests"] - sum(count["requests"] for count in each["clients"].values())
    return ", ".join([*parts, *([f"others {others}"] if others else [])])


def gateway_lines(gateway: dict[str, Any], colour: bool) -> list[str]:
    """The requests since a gateway's watcher has started, and its servers."""
    totals = gateway["totals"]
    count = totals["requests"]
    parts = [f"{count} {'request' if count == 1 else 'requests'} of clients"]
    if count:
        parts.append(f"{totals['seconds'] / count:.1f} s each")
    parts += [
        f"{totals[key]} {words}"
        for key, words in (
            ("retried", "given to another server"),
            ("refused", "refused: too many waiting"),
            ("failed", "failed"),
        )
        if totals[key]
    ]
    if gateway["full"]:
        parts.append(_paint("the disk has no room for another large body", _RED, colour))
    return [
        f"    {', '.join(parts)}",
        *(_server(server, colour) for server in gateway["servers"]),
    ]


def _server(server: dict[str, Any], colour: bool) -> str:
    state = "gets requests" if server["serving"] else "gets none"
    shown = _paint(state, _GREEN if server["serving"] else _RED, colour)
    parts = [f"{shown} for {age(server['for'])}"]
    if server["why"]:
        parts[0] += f" ({server['why']})"
    parts += [
        f"{server[key]} {words}"
        for key, words in (("requests", "tried"), ("failed", "failed"), ("full", "too full for"))
        if server[key]
    ]
    return f"    {server['name']} ({server['url']}): {', '.join(parts)}"


def _paint(text: str, colour: str, wanted: bool) -> str:
    return f"{colour}{text}{_PLAIN}" if wanted else text


def age(seconds: int) -> str:
    """A time in its two largest units."""
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    found: list[str] = []
    for name, size in units:
        if seconds >= size or found:
            found.append(f"{seconds // size} {name}")
            seconds %= size
    return " ".join(found[:2]) or "0 s"
