"""Real Ollama, beside an engine that is up in seconds."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.ollama import OLLAMA, TINY_LLM, ask, chat, has, loaded, make_tiny_llm, needs_ollama
from tests.e2e.project import Project, ai_access_by_turns, changed, left_of, light, machine, request
from tests.ollama_registry import OllamaRegistry

SUBNET = "10.213.40"
pytestmark = needs_ollama


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    stack = Project(tmp_path_factory.mktemp("ollama"), "stt-e2e-ol", SUBNET)
    light(stack)
    stack.machines = {"gpu-server": machine("base_system", "ollama_server", "stt_server")}
    stack.set(sources={"ollama": OLLAMA})
    try:
        stack.up()
        yield stack
    finally:
        stack.destroy()
    assert left_of(stack.domain) == []


def test_it_reads_every_variable_of_its_unit(project: Project) -> None:
    """At its start it logs each variable that it knows, with its value."""
    names = project.variables_of("ollama.env") - {"HOME"}  # the system's
    said = project.journal("ollama").splitlines()
    [line] = [line for line in said if "server config" in line]
    known = set(re.findall(r"([A-Z_]+):", line))
    assert "OLLAMA_KEEP_ALIVE" in names and "OLLAMA_KEEP_ALIVES" not in known
    assert names <= known
    for value in ("OLLAMA_HOST:http://0.0.0.0:11434", "OLLAMA_MODELS:/srv/models/ollama"):
        assert value in line


def test_it_runs_a_model(project: Project) -> None:
    assert project.outputs()["ollama_url"] == f"http://{SUBNET}.1:11434"
    version = ask(project, "/api/version")["version"]
    for shell in ((), ("sh", "-lc", 'exec "$0" "$@"')):
        assert project.inside(*shell, "ollama", "--version") == f"ollama version is {version}"
    make_tiny_llm(project)
    chat(project, "tiny")
    assert "Ollama: tiny:latest: 0 MiB on cards" in project.operation("vram")
    assert "Ollama unloaded" in project.operation("flush")
    assert "Ollama: nothing loaded" in project.operation("vram")


def test_a_second_model_comes_while_the_first_one_is_in_use(
    project: Project, tmp_path: Path
) -> None:
    """From a registry over HTTPS; Ollama does not start again."""
    models = dict.fromkeys(("library/one:1b", "library/two:1b"), TINY_LLM)
    registry = OllamaRegistry(f"{SUBNET}.254", models, tmp_path)
    first, second = (f"{registry.host}/{name}" for name in models)
    try:
        project.set(ollama={"models": [first]}, caBundle=str(registry.certificate))
        project.up()
        chat(project, first)
        started = project.invocation("ollama")
        project.set(ollama={"models": [first, second]})
        said = project.up()
        assert changed(said, f"{project.domain}/gpu-server/") == ["ollama_server/models"]
        assert project.invocation("ollama") == started
        assert loaded(project) == [first]
        chat(project, second)
        assert {first, second} <= has(project)
        assert project.unchanged()
        # What somebody has deleted is drift, and comes again.
        ask(project, "/api/delete", "DELETE", {"model": second})
        [drift] = project.drift()
        assert f"model {second}: not there -> there" in drift
        project.up()
        chat(project, second)
    finally:
        registry.close()
        project.set(ollama=None, caBundle=None)
    project.up()


def test_its_settings_take_effect(project: Project) -> None:
    project.set(ollama={"port": 11500, "keepAlive": "7m", "models": ["nowhere/nothing:1b"]})
    said = project.fails()
    assert "stt:ollama.models: a model could not be pulled" in said
    assert re.search(r"^ *nowhere/nothing:1b: ", said, re.MULTILINE), said
    assert request(f"http://{SUBNET}.1:11500/api/version").status == 200
    pid = project.inside("systemctl", "show", "-P", "MainPID", "ollama")
    environment = project.inside("cat", f"/proc/{pid}/environ").split("\0")
    assert "OLLAMA_KEEP_ALIVE=7m" in environment
    project.set(ollama=None)
    project.up()
    assert project.unchanged()


#: Asks Ollama for one text after the other.
ASK_ON = """import sys, urllib.request
while True:
    with urllib.request.urlopen(sys.argv[1], sys.argv[2].encode()) as answer:
        answer.read()
    print("heard", flush=True)
"""


def test_the_models_go_with_the_ai_access(project: Project) -> None:
    """Those of both services; Ollama's also where who loses the access asks without a pause."""
    home, work = f"{project.domain}h", f"{project.domain}w"
    ai_access_by_turns(project, {home: "10.213.41", work: "10.213.42"})
    project.policy = [
        {"from": name, "to": f"{project.domain}/gpu-server", "ports": [8000, 11434]}
        for name in (home, work)
    ]
    project.write()
    project.up()
    make_tiny_llm(project)
    chat(project, "tiny")
    assert project.transcribe("hello_world").status == 200

    def hand_over(domain: str) -> str:
        done = project.make("ai-access", f"DOMAIN={domain}")
        assert done.returncode == 0, done.stdout + done.stderr
        assert loaded(project) == []
        assert "STT (custom): nothing loaded" in project.operation("vram")
        return done.stdout

    def tried(name: str, how: str) -> str:
        return f"  {name}: {name}/other to {SUBNET}.1:11434 {how}, {SUBNET}.1:8000 {how}\n"

    started = project.invocation("ollama")
    said = hand_over(work)
    assert tried(home, "silent") in said and tried(work, "connected") in said
    assert project.invocation("ollama") == started

    question = {"model": "tiny", "prompt": "x", "options": {"num_predict": 200}}
    asks = ("python3", "-c", ASK_ON, f"{project.outputs()['ollama_url']}/api/generate")
    exec_ = ("incus", "--project", work, "exec", "other", "--")
    with subprocess.Popen([*exec_, *asks, json.dumps(question)], stdout=subprocess.PIPE) as at_work:
        assert at_work.stdout
        assert at_work.stdout.readline() == b"heard\n"
        assert loaded(project) == ["tiny:latest"]
        said = hand_over(home)
        at_work.kill()
    assert tried(work, "silent") in said and tried(home, "connected") in said

    project.domains, project.globals, project.policy = {}, {}, []
    project.write()
    project.up()
