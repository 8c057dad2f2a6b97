"""Real Speaches and real Ollama, where their sources are at hand.

``STT_TEST_SPEACHES`` (a git bundle or URL with the pinned tag), ``STT_TEST_PYTHON`` (a relocatable
Python 3.12 as a tar file, for images without one; optional) and ``STT_TEST_OLLAMA`` (an archive
with bin/ollama) name them.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from tests.documented import command
from tests.e2e.calls_out import heard
from tests.e2e.documented import follow
from tests.e2e.load import outage_at_rest, tell, under_load
from tests.e2e.locked import lock_files
from tests.e2e.ollama import needs_ollama
from tests.e2e.project import (
    RECORDINGS,
    ROOT,
    Answer,
    Project,
    broken_model,
    incus,
    left_of,
    machine,
    post_recording,
    request,
    run,
    wait_until,
)
from tests.e2e.webui import sign_in
from tests.model_hub import ModelHub
from tests.multilingual import make_model
from tests.server.server import wav

SOURCES = {
    name: os.environ.get(f"STT_TEST_{name.upper()}", "")
    for name in ("speaches", "python", "ollama")
}
SUBNET = "10.213.45"
MODEL = "./models/tiny-digits"
OLLAMA = ["ollama"] if SOURCES["ollama"] else []
pytestmark = pytest.mark.skipif(not SOURCES["speaches"], reason="STT_TEST_SPEACHES names no source")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    stack = Project(tmp_path_factory.mktemp("speaches"), "stt-e2e-s", SUBNET)
    roles = ["base_system", *(f"{name}_server" for name in OLLAMA), "stt_server"]
    stack.machines = {"gpu-server": machine(*roles), "webui": machine("base_system", "open_webui")}
    stack.set(webui={"publish": "127.0.0.1:28152"})
    stack.set(engine="speaches", sources={name: path for name, path in SOURCES.items() if path})
    stack.up()
    yield stack
    stack.destroy()
    assert left_of(stack.domain) == []


def test_the_verification_transcribed_the_recording(project: Project) -> None:
    check = project.outputs()["stt_check"]
    assert check["text"] == "one two three"
    assert (check["device"], check["compute_type"]) == ("cpu", "int8_float32")
    assert request(project.outputs()["stt_health_url"]).status == 200
    for unit in ("speaches", *OLLAMA):
        assert project.inside("systemctl", "is-active", unit) == "active"


def test_open_webui_transcribes_with_speaches(project: Project) -> None:
    assert project.outputs()["webui_check"]["text"] == "one two three"
    admin = sign_in(project)
    assert admin.text_of("hello_world") == "hello world"
    audio = admin.call("api/v1/audio/config").json
    assert audio["stt"]["OPENAI_API_KEY"] == project.outputs()["stt_api_key"]


@pytest.mark.parametrize("recording", sorted(path.stem for path in RECORDINGS.glob("*.wav")))
def test_recordings_come_back_as_their_words(project: Project, recording: str) -> None:
    for model in (None, "whisper-1"):
        answer = project.transcribe(recording, model)
        assert (answer.status, answer.json["text"]) == (200, recording.replace("_", " "))


def test_without_the_key_there_is_no_transcription(project: Project) -> None:
    url = project.outputs()["stt_url"]
    for key in ("", "wrong-key-wrong-key"):
        answer = post_recording(url, RECORDINGS / "hello_world.wav", "whisper-1", key)
        assert answer.status == 401


def test_status_and_clients(project: Project) -> None:
    """What it runs and has done, and for whom; a client comes and goes while it runs on."""

    def service() -> dict[str, Any]:
        done = project.make("status", "JSON=1")
        found: dict[str, Any] = json.loads(done.stdout)[f"{project.domain}/gpu-server"]
        assert done.returncode == 0
        return dict(found["services"]["stt_server/service"])

    before = service()
    assert (before["unit"], before["state"]) == ("speaches.service", "active")
    assert (before["model"], before["device"]) == (MODEL, "cpu")
    project.set(clients=["phone"])
    project.up()
    url, key = project.outputs()["stt_url"], project.outputs()["stt_client_keys"]["phone"]
    recording = RECORDINGS / "hello_world.wav"
    assert post_recording(url, recording, "whisper-1", key).json["text"] == "hello world"
    assert post_recording(url, recording, "whisper-1", "wrong-key-wrong-key").status == 401
    after = service()
    assert after["requests"] - before["requests"] == 2
    assert after["failed"] - before["failed"] == 1
    assert "by client: phone 1" in project.make("status").stdout
    assert project.drift() == []
    project.set(clients=None)
    project.up()
    assert post_recording(url, recording, "whisper-1", key).status == 401
    assert service()["seconds"] > before["seconds"]  # it has not started again


def test_the_documented_commands_work(project: Project) -> None:
    for line in (command(f"status {unit}") for unit in ("speaches", *OLLAMA)):
        assert "Active: active (running)" in follow(project, line).stdout
    said = "INFO:speaches."
    assert said in follow(project, command("journalctl"), until=said).stdout
    assert follow(project, command("ffmpeg")).stdout.startswith("ffmpeg version")
    assert json.loads(follow(project, command("gpu-server:8000")).stdout)["text"] == "hello world"
    project.inside("apt-get", "-qy", "remove", "ffmpeg")
    assert project.drift() == ["gpu-server/stt_server/packages: package ffmpeg: not there -> there"]
    project.up()
    assert follow(project, command("ffmpeg")).returncode == 0


def test_one_model_is_served_by_its_names_and_nothing_is_open(project: Project) -> None:
    outputs = project.outputs()
    root = outputs["stt_url"].removesuffix("/v1")

    def ask(method: str, path: str) -> Answer:
        return request(f"{root}{path}", outputs["stt_api_key"], method=method)

    names = [model["id"] for model in ask("GET", "/v1/models").json["data"]]
    assert {MODEL, "whisper-1", "local/tiny-digits"} <= set(names)
    other = project.transcribe("hello_world", "Systran/faster-whisper-large-v3")
    assert (other.status, "'./models/tiny-digits' is" in other.json["detail"]) == (404, True)
    assert ask("POST", "/v1/models/whisper-1").status == 201
    fetched = ask("POST", "/v1/models/Systran/faster-whisper-tiny")
    assert (fetched.status, "downloads none" in fetched.json["detail"]) == (404, True)
    assert ask("DELETE", "/v1/models/local/tiny-digits").status == 405
    for path in ("/docs", "/openapi.json", "/redoc"):
        assert (request(f"{root}{path}").status, ask("GET", path).status) == (401, 404)
    assert project.transcribe("hello_world").json["text"] == "hello world"


def unread_by_speaches(project: Project, *names: str) -> list[str]:
    """The variables that the installed Speaches reads nowhere."""
    unit = project.inside("systemctl", "show", "-P", "ExecStart", "speaches")
    python, app = unit.partition("argv[]=")[2].split()[:2]
    command = ("exec", "gpu-server", "--", python, "-", app, *names)
    program = (ROOT / "tests" / "speaches_variables.py").read_text()
    found: list[str] = json.loads(incus(*command, project=project.domain, stdin=program))
    return found


def test_speaches_reads_every_variable_of_its_unit(project: Project) -> None:
    names = project.variables_of("speaches.env", "stt_server/api-key.env")
    assert {"API_KEY", "STT_MODEL_TTL", "WHISPER__COMPUTE_TYPE"} <= set(names)
    assert unread_by_speaches(project, *names) == []
    # It would have been noticed: these are names of earlier versions.
    old = ["WHISPER__MODEL", "WHISPER__TTL"]
    assert unread_by_speaches(project, *names, *old) == old


def test_a_second_up_changes_nothing(project: Project) -> None:
    assert project.unchanged()


def test_neither_calls_anybody(project: Project) -> None:
    """While they start anew and transcribe, and for a minute afterwards."""
    with heard(project, 60) as recorder:
        project.inside("systemctl", "restart", "speaches", *OLLAMA)
        wait_until(lambda: project.transcribe("hello_world").status == 200)
    recorder.assert_nobody_was_called()


def test_the_key_stands_nowhere_in_plain(project: Project) -> None:
    key = project.outputs()["stt_api_key"]
    assert key not in project.inside("sh", "-c", "cat /proc/[0-9]*/cmdline; journalctl --no-pager")


def test_every_setting_takes_effect(project: Project) -> None:
    assert "device=cpu compute_type=int8_float32" in project.journal("speaches")
    make_model(project.root / "models" / "hundred")
    project.set(
        model="./models/hundred", quantization="float32", language="fr", port=8111,
        host=f"{SUBNET}.1", limits={"audioMinutes": 1, "uploadMB": 2},
    )  # fmt: skip
    project.up()
    assert project.outputs()["stt_url"] == f"http://{SUBNET}.1:8111/v1"
    assert "device=cpu compute_type=float32" in project.journal("speaches")
    verbose = {"response_format": "verbose_json"}
    assert project.transcribe("hello_world", **verbose).json["language"] == "fr"
    assert project.transcribe("hello_world", **verbose, language="de").json["language"] == "de"
    outputs = project.outputs()
    with httpx.Client(base_url=outputs["stt_url"], timeout=60, trust_env=False) as client:
        client.headers["Authorization"] = f"Bearer {outputs['stt_api_key']}"

        def status(audio: bytes) -> int:
            answer = client.post(
                "audio/transcriptions", data={"model": "whisper-1"}, files={"file": audio}
            )
            return answer.status_code

        # Where nobody speaks for more than Whisper takes at once, there are no words.
        assert [status(wav(np.zeros(16000 * s))) for s in (40, 62)] == [200, 400]
        assert status(bytes(3 << 20)) == 413
    project.set(enabled=False)
    project.up()
    with pytest.raises(OSError, match="refused"):
        request(f"http://{SUBNET}.1:8111/health")
    project.set(
        model=MODEL, quantization="int8", language=None, port=None, host=None,
        enabled=None, limits=None,
    )  # fmt: skip
    project.up()
    assert project.transcribe("hello_world").json["text"] == "hello world"


def test_clients_wait_for_a_change_and_lose_nothing(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of another quantization, another model, another keepAlive; a broken one is never started."""
    usual = outage_at_rest(project, capsys, "Speaches, no change")

    digits = project.root / "models" / "digits"
    shutil.copytree(ROOT / "models" / "tiny-digits", digits, dirs_exist_ok=True)
    changes: list[tuple[str, dict[str, Any]]] = [
        ("another quantization", {"quantization": "float32"}),
        ("another model", {"model": "./models/digits"}),
        ("another keepAlive", {"keepAlive": "1m"}),
        ("all of them back", {"quantization": "int8", "model": MODEL, "keepAlive": None}),
    ]
    for what, settings in changes:
        started = project.invocation("speaches")
        project.set(**settings)
        with under_load(project) as load:
            project.up()
        tell(capsys, f"Speaches, {what}", load)
        assert load.failed == 0, load.wrong
        assert load.outage < usual + 30
        assert project.invocation("speaches") != started

    started = project.invocation("speaches")
    project.set(model=broken_model(project))
    with under_load(project) as load:
        assert "does not load" in project.fails()
    tell(capsys, "Speaches, a model that does not load", load)
    assert load.failed == 0, load.wrong
    assert project.invocation("speaches") == started
    project.set(model=MODEL)
    project.up()


def test_a_model_is_fetched_by_its_short_name(project: Project) -> None:
    directory = ROOT / "models/tiny-digits"
    hub = ModelHub(f"{SUBNET}.254", {"Systran/faster-whisper-tiny": directory})
    lock_files(project, "pkg:huggingface/Systran/faster-whisper-tiny", directory.iterdir())
    try:
        project.set(model="tiny", sources={**project.settings["sources"], "models": hub.url})
        project.up()
    finally:
        hub.close()
    assert project.transcribe("four_five_six", "tiny").json["text"] == "four five six"


def test_the_light_engine_takes_over_with_the_same_url_and_key(project: Project) -> None:
    key, url = project.outputs()["stt_api_key"], project.outputs()["stt_url"]
    project.set(model=MODEL, engine="faster-whisper")
    project.up()
    assert (project.outputs()["stt_api_key"], project.outputs()["stt_url"]) == (key, url)
    assert project.transcribe("hello_world").json["text"] == "hello world"
    project.set(engine="speaches")
    project.up()
    assert project.transcribe("hello_world").json["text"] == "hello world"


def test_keep_alive_takes_effect(project: Project) -> None:
    project.set(keepAlive="2s")
    project.up()
    wait_until(lambda: "STT (speaches): nothing loaded" in project.operation("vram"))
    assert project.transcribe("hello_world").json["text"] == "hello world"
    project.set(keepAlive=None)
    project.up()
    assert "loaded, unloads 5m after its last use" in project.operation("vram")


@needs_ollama
def test_flush_frees_both_while_a_transcription_runs(project: Project) -> None:
    """Speaches itself would refuse, and lose track of its model."""
    outputs = project.outputs()
    statuses: list[int] = []

    def transcribe() -> None:
        for _ in range(10):
            answer = post_recording(
                outputs["stt_url"], RECORDINGS / "two_zero_two_six.wav", "whisper-1",
                outputs["stt_api_key"],
            )  # fmt: skip
            statuses.append(answer.status)

    clients = [threading.Thread(target=transcribe) for _ in range(3)]
    for client in clients:
        client.start()
    flushed = [project.operation("flush") for _ in range(4)]
    assert any("STT unloaded" in said for said in flushed), flushed
    for client in clients:
        client.join()
    assert statuses == [200] * 30
    project.operation("flush")
    assert "STT (speaches): nothing loaded" in project.operation("vram")
    # It has not lost track: the next request loads, and what is loaded can be unloaded again.
    assert project.transcribe("hello_world").json["text"] == "hello world"
    assert "gpu-server: STT unloaded" in project.operation("flush")


def test_what_runs_on_the_cpu_fails_where_a_gpu_is_to_be_used(project: Project) -> None:
    """The verifications of a machine with a GPU, run in this one, which has none."""
    state = json.loads(project.shell("pulumi stack export").stdout)
    inputs = {each["urn"].rpartition("::")[2]: each["inputs"] for each in
              state["deployment"]["resources"] if "inputs" in each}  # fmt: skip
    name = f"{project.domain}/gpu-server/stt_server/verify"
    verify = json.loads(inputs[name]["stdin"])
    verify["spec"]["device"] = "cuda"
    agent = ("python3", "-IS", "/opt/incus-stt/agent")
    done = run("incus", "--project", project.domain, "exec", "gpu-server", "--", *agent, "apply",
               "test/verify", input=json.dumps(verify))  # fmt: skip
    assert done.returncode != 0
    assert "speaches runs on the CPU and not on the GPU" in done.stderr, done.stderr
    project.inside(*agent, "remove", "test/verify")
    if not OLLAMA:
        return
    program = (ROOT / "roles/ollama_server/machine/verify_gpu.py").read_text()
    done = run("incus", "--project", project.domain, "exec", "gpu-server", "--", "python3", "-",
               input=program)  # fmt: skip
    assert done.returncode != 0
    assert "runs on the CPU and not on the GPU" in done.stderr, done.stderr
