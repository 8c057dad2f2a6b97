"""A container: what is said where Incus refuses an edit, and when it counts as there."""

import json
import subprocess
import time
from dataclasses import dataclass
from typing import Any

import pytest

from declaration.connection import Connection
from host import instance
from host.client import Client, HostError
from host.instance import apply_instance
from host.objects import Place

BIND = 'Failed to start device "webui": Error occurred when starting proxy device: Error: '
LISTEN = f"{BIND}Failed to listen on 10.0.0.9:3000: listen tcp 10.0.0.9:3000: bind: "


@dataclass(frozen=True)
class Refusing(Client):
    """A client of a host that has the container and refuses to edit it."""

    said: str = ""

    def run(self, *words: str, **_: Any) -> subprocess.CompletedProcess[str]:
        """Answer a question, and refuse everything else."""
        state: dict[str, Any] = {"config": {}, "devices": {}, "profiles": [], "status": "Stopped"}
        if words[0] == "query":
            return subprocess.CompletedProcess(words, 0, json.dumps(state), "")
        return subprocess.CompletedProcess(words, 1, "", self.said)


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        (f"{LISTEN}address already in use", "stop the other program"),
        (
            f"{BIND}Failed to receive fd from listener process: Failed to receive file descriptor "
            "via abstract unix socket",
            "most often something on the host has the address",
        ),
        (f"{LISTEN}cannot assign requested address", "does not belong to the host"),
        ("Failed to write: no space left on device", ""),
    ],
)
def test_a_refused_edit_comes_with_advice(said: str, advice: str) -> None:
    client = Refusing(Connection("local"), said)
    with pytest.raises(HostError) as error:
        apply_instance(client, Place("webui", "ai-tools"), {"config": {}, "devices": {}}, "image")
    lines = error.value.user_message.split("\n")
    assert lines[0] == said
    assert advice in "".join(lines[1:])
    # The device may be an operator's own, such as a gateway's, or Open WebUI's.
    for place in ("that device in the topology", "stt:webui.publish"):
        assert bool(advice) == (place in error.value.user_message)


@dataclass(frozen=True)
class Booting(Client):
    """A client of a host whose container gets its address after some questions, or never."""

    late: float = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "asked", [])

    def get(self, path: str, deadline: float = 600) -> Any:
        """The container, and its state."""
        if "/state?" not in path:
            return {"config": {}, "devices": {}, "profiles": [], "status": "Running"}
        self.asked.append(path)  # type: ignore[attr-defined]  # frozen
        there = len(self.asked) > self.late  # type: ignore[attr-defined]  # frozen
        addresses = [{"family": "inet", "address": "10.9.8.1"}] if there else []
        return {"network": {"lo": {"addresses": None}, "eth0": {"addresses": addresses}}}

    def run(self, *words: str, **_: Any) -> subprocess.CompletedProcess[str]:
        """It has booted."""
        return subprocess.CompletedProcess(words, 0, "running", "")


@pytest.mark.parametrize(("late", "asked"), [(2, 3), (0, 1), (float("inf"), 3)])
def test_it_is_there_once_it_has_its_address(
    monkeypatch: pytest.MonkeyPatch, late: float, asked: int
) -> None:
    """An image without DHCP is waited for, but not for ever."""
    now = iter(range(100))
    monkeypatch.setattr(instance, "ADDRESS_DEADLINE", 4)
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    monkeypatch.setattr(time, "sleep", lambda _: None)
    client = Booting(Connection("local"), late)
    nic = {"type": "nic", "ipv4.address": "10.9.8.1"}
    desired = {"config": {}, "devices": {"eth0": nic}}
    apply_instance(client, Place("webui", "ai-tools"), desired, "image")
    found = client.asked  # type: ignore[attr-defined]  # frozen
    assert found == ["/1.0/instances/webui/state?project=ai-tools"] * asked
