"""The list that `destroy` shows before it begins."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from declaration.source_files import ROOT
from host.client import Client, HostError
from operations.removal import removal


def resource(kind: str, name: str, *, keep: bool = False, **options: str) -> dict[str, Any]:
    words = " ".join(f"--{key} {value}" for key, value in options.items())
    inputs = {
        "triggers": ["local", kind, name],
        "create": f"python -m host --connection local apply {kind} {name} {words}",
        **({} if keep else {"delete": "python -m host delete"}),
    }
    return {"type": "command:local:Command", "inputs": inputs}


def state(*resources: dict[str, Any]) -> dict[str, Any]:
    return {"deployment": {"resources": [{"type": "pulumi:pulumi:Stack"}, *resources]}}


PROJECT = resource("project", "lab")
BRIDGE = resource("network", "net-lab", project="default")
MACHINE = resource("instance", "gpu-server", project="lab")
STEP = {"type": "command:local:Command", "inputs": {"triggers": ["local", "x"], "create": "a"}}


@pytest.fixture(autouse=True)
def volumes(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Incus, which knows the size of `data`, and has `models` mounted in a machine."""
    answers: dict[str, Any] = {
        "/1.0/storage-pools/fast/volumes/custom/data/state?project=lab": {"usage": {"used": 3.2e9}},
        "/1.0/storage-pools/default/volumes/custom/models/state?project=lab": {"usage": None},
        "/1.0/instances?recursion=1&project=lab": [
            {
                "name": "gpu-server",
                "status": "Running",
                "expanded_devices": {"m": {"source": "models", "path": "/srv/models"}},
            }
        ],
    }
    monkeypatch.setattr(Client, "get", lambda _, path: answers.get(path))
    monkeypatch.setattr(Client, "call", lambda _, *words, **__: f"1900\t{words[-1]}\n")
    return answers


def test_what_goes_and_its_sizes() -> None:
    volume = resource("volume", "models", project="lab")
    assert removal(state(PROJECT, BRIDGE, volume, MACHINE, STEP)) == [
        "On local, destroy removes:",
        "  machine lab/gpu-server, with all in it that is on no volume",
        "  volume lab/models (1.9 MB), with all that is on it",
        "  bridge net-lab",
        "  project lab",
        "and the keys and passwords that this stack has made.",
    ]


def test_what_stays_and_the_project_with_it() -> None:
    volume = resource("volume", "data", keep=True, project="lab", pool="fast")
    lines = removal(state(PROJECT, BRIDGE, volume, MACHINE))
    assert lines[-3:] == [
        "It leaves, with all that is on them:",
        "  volume lab/data (3.2 GB)",
        "  project lab, which they are in",
    ]
    assert "  project lab" not in lines


def test_a_size_that_nobody_knows(volumes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    volume = resource("volume", "models", project="lab")
    volumes["/1.0/instances?recursion=1&project=lab"][0]["status"] = "Stopped"
    assert "  volume lab/models (size not known), with all that is on it" in removal(state(volume))

    def unreachable(_: Client, path: str) -> Any:
        raise HostError(f"no answer: {path}")

    monkeypatch.setattr(Client, "get", unreachable)
    assert "  volume lab/models (size not known), with all that is on it" in removal(state(volume))


def test_nothing_to_remove_is_no_list() -> None:
    assert removal(state()) == removal({}) == removal(state(STEP)) == []


def test_a_state_that_pulumi_could_not_show_is_no_list() -> None:
    words = [sys.executable, "-m", "operations", "removal", "--stack", "dev"]
    done = subprocess.run(words, input="", capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
