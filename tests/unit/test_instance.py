"""What is said where Incus refuses an edit of a container, with Incus' own words."""

import json
import subprocess
from dataclasses import dataclass
from typing import Any

import pytest

from declaration.connection import Connection
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
    assert bool(advice) == ("stt:webui.publish" in error.value.user_message)
