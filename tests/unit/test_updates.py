"""``make updates``: every machine of a stack, through its domain's way out, and what is said."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from host.client import HostError
from host.egress import Egress
from operations import updates
from operations.host import OperationError
from stack.declare import Declaration
from tests.unit.values import declared

NOTHING: dict[str, Any] = {"updated": [], "restarted": [], "old": [], "broken": []}
DONE = {
    "updated": ["openssl 1 -> 2"],
    "restarted": ["speaches.service"],
    "old": ["dbus.service"],
    "broken": ["speaches.service: it is failed"],
}


class Host:
    """A host: what machines answer, and when the way out was open."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, answers: dict[str, tuple[int, str]]
    ) -> None:
        self.events: list[str] = []
        #: Each that has ended, and how many events there were by then.
        self.ended: list[tuple[str, int]] = []
        self.takes = 0.0
        host = self

        class Incus:
            def run(self, *words: str, **_: Any) -> subprocess.CompletedProcess[str]:
                host.events.append(words[1])
                time.sleep(host.takes)
                host.ended.append((words[1], len(host.events)))
                status, said = answers[words[1]]
                out, err = ("", said) if status else (said, "")
                return subprocess.CompletedProcess(words, status, out, err)

        @contextmanager
        def way_out(egress: Egress) -> Iterator[None]:
            host.events.append(f"open {egress.bridge}")
            yield
            host.events.append("close")

        monkeypatch.setattr(updates, "Client", lambda connection: Incus())
        monkeypatch.setattr(Egress, "open", way_out)


def told(declaration: Declaration) -> list[str]:
    return [line for each in updates.update(declaration) for line in updates.lines(*each)]


def test_each_machine_is_updated_while_the_bridge_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"gpu-server": (0, json.dumps(DONE)), "webui": (0, json.dumps(NOTHING))}
    host = Host(monkeypatch, said)
    assert told(declared()) == [
        "ai-tools/gpu-server: 1 security update",
        "  openssl 1 -> 2",
        "  restarted: speaches.service",
        "  still using old files: dbus.service; restart when convenient: incus restart gpu-server "
        "--project ai-tools",
        "  does not work: speaches.service: it is failed",
        "ai-tools/webui: no security updates",
    ]
    first, *machines, last = host.events
    assert (first, sorted(machines), last) == (
        "open net-ai-tools",
        ["gpu-server", "webui"],
        "close",
    )
    assert not updates.works(DONE) and updates.works(NOTHING)


@pytest.mark.parametrize("egress", ["open", "closed"])
def test_a_bridge_that_is_always_the_same_stays_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, egress: str
) -> None:
    infra = tmp_path / "infra.yml"
    infra.write_text(
        f"domains: {{lab: {{trust_level: trusted, egress: {egress}, machines: {{one: "
        "{roles: [base_system, stt_server]}}}}\n"
    )
    host = Host(monkeypatch, {"one": (0, json.dumps(NOTHING))})
    assert told(declared(infra=str(infra))) == ["lab/one: no security updates"]
    assert host.events == ["one"]


def test_servers_of_a_gateway_are_updated_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    infra = tmp_path / "infra.yml"
    stt, gateway = (f"{{roles: [base_system, {role}]}}" for role in ("stt_server", "stt_gateway"))
    machines = f"{{one: {stt}, two: {stt}, three: {stt}, gateway: {gateway}}}"
    infra.write_text(f"domains: {{lab: {{trust_level: trusted, machines: {machines}}}}}\n")
    host = Host(monkeypatch, dict.fromkeys(("one", "two", "three", "gateway"), (0, "{}")))
    host.takes = 0.05
    assert len(list(updates.update(declared(infra=str(infra))))) == 4
    servers = [each for each in host.events if each in ("one", "two", "three")]
    ends = [name for name, _ in host.ended if name != "gateway"]
    assert servers == ends == ["one", "two", "three"]
    for name, events in host.ended:
        later = servers[servers.index(name) + 1 :] if name != "gateway" else []
        assert not set(later) & set(host.events[:events]), "the next one began before"


def test_a_machine_that_fails_does_not_keep_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    old = "agent update: not known. Known: check, status."
    said = {"gpu-server": (1, "E: no network\nCheck it."), "webui": (1, old)}
    Host(monkeypatch, said)
    assert told(declared()) == [
        "ai-tools/gpu-server: not updated",
        "  E: no network",
        "  Check it.",
        "ai-tools/webui: not updated",
        "  its agent is another version; make up installs this one's",
    ]
    assert not updates.works("E: no network")


def test_a_bridge_that_cannot_be_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(egress: Egress) -> None:
        raise HostError("The bridge is not there. Run up again.")

    monkeypatch.setattr(Egress, "open", gone)
    with pytest.raises(OperationError, match="Run up again"):
        list(updates.update(declared()))
