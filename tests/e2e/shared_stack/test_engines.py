"""Another engine is one setting: URL and key stay, and the new one transcribes.

Weights of Parakeet and Vosk cannot be had from package registries: their models here are the
smallest that load for real, with random weights, and their words mean nothing.
"""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.e2e.load import under_load
from tests.e2e.locked import lock_files
from tests.e2e.project import (
    LIGHT,
    RECORDINGS,
    Project,
    mute_model,
    post_recording,
    run,
)
from tests.e2e.tiny_models import tiny_model
from tests.model_hub import ModelHub
from tests.tiny_vosk import make_model as make_vosk


@pytest.fixture(scope="module")
def project(engine_stack: Project) -> Project:
    """The shared stack: each test sets its engine."""
    return engine_stack


@pytest.fixture(autouse=True)
def same_url_and_key(project: Project) -> Iterator[None]:
    """Whatever a test does with engines and models."""
    before = project.outputs()
    yield
    after = project.outputs()
    assert (before["stt_url"], before["stt_api_key"]) == (after["stt_url"], after["stt_api_key"])


def models(project: Project) -> list[str]:
    """The models on the volume."""
    return project.inside("ls", "/srv/models/stt").split()


def test_the_outputs_tell_what_it_runs_on_and_how_long_the_change_took(project: Project) -> None:
    outputs = project.outputs()
    check, times = outputs["stt_check"], outputs["stt_times"]
    assert (check["device"], check["compute_type"]) == ("cpu", "int8_float32")
    assert set(times) == {"check", "restart"} and all(0 < each < 300 for each in times.values())
    assert outputs["stt_quantization"] == "int8"


@pytest.mark.seldom
@pytest.mark.parametrize("engine", ["parakeet", "vosk"])
def test_an_engine_with_a_directory_of_the_operator_s(project: Project, engine: str) -> None:
    tiny_model(project, engine)
    project.set(engine=engine, model=f"./models/tiny-{engine}", quantization=None, check=None)
    # Its weights are random.
    assert 'transcribed a recording of "one two three" as' in project.fails()
    project.set(check={"words": ""})
    with under_load(project, "") as load:
        assert "any words will do" in project.up()
    assert load.failed == 0, "the port is held while another engine takes the place"
    assert project.unchanged()
    health = project.health()
    assert (health["engine"], health["device"]) == (engine, "cpu")
    assert health["compute_type"] == {"parakeet": "int8", "vosk": "float32"}[engine]
    check = project.outputs()["stt_check"]
    assert check["text"] and check["proven"] is False
    for model in (None, "whisper-1"):
        answer = project.transcribe("hello_world", model)
        assert answer.status == 200 and answer.json["text"]
    unit = project.inside("systemctl", "is-active", engine)
    assert unit == "active"
    assert "not-found" in project.inside("systemctl", "show", "-P", "LoadState", "faster-whisper")


@pytest.mark.seldom
def test_parakeet_s_compute_type_takes_effect(project: Project) -> None:
    project.set(engine="parakeet", model="./models/tiny-parakeet", quantization="float32")
    project.up()
    assert project.health()["compute_type"] == "float32"


@pytest.mark.seldom
def test_parakeet_is_fetched_by_its_name(project: Project) -> None:
    directory = project.root / "models" / "tiny-parakeet"
    repository = "istupakov/parakeet-tdt-0.6b-v3-onnx"
    hub = ModelHub(f"{project.subnet}.254", {repository: directory})
    revision = hub.revision(repository)
    lock_files(project, f"pkg:huggingface/{repository}", directory.iterdir(), revision)
    try:
        project.set(model=None, quantization=None, sources={"models": hub.url})
        project.up()
    finally:
        hub.close()
    assert hub.requests and all(revision in each for each in hub.requests)
    outputs = project.outputs()
    assert outputs["stt_model"] == project.health()["model"] == "parakeet-tdt-0.6b-v3"
    assert outputs["stt_times"]["fetch"] > 0
    # Of the two kinds the one that is asked for, and none of the earlier models.
    (model,) = models(project)
    files = project.inside("ls", f"/srv/models/stt/{model}").split()
    assert "encoder-model.int8.onnx" in files and "encoder-model.onnx" not in files
    for name in ("parakeet-tdt-0.6b-v3", "istupakov/parakeet-tdt-0.6b-v3-onnx", "whisper-1"):
        assert project.transcribe("hello_world", name).status == 200


@pytest.mark.seldom
def test_vosk_is_fetched_by_its_name(project: Project, tmp_path: Path) -> None:
    name = "vosk-model-small-en-us-0.15"
    make_vosk(tmp_path / "zip" / name)
    archive = shutil.make_archive(str(tmp_path / name), "zip", tmp_path / "zip", name)
    lock_files(project, f"pkg:generic/{name}", [Path(archive)])
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    site = ThreadingHTTPServer((f"{project.subnet}.254", 0), handler)
    threading.Thread(target=site.serve_forever, daemon=True).start()
    try:
        source = f"http://{project.subnet}.254:{site.server_address[1]}"
        project.set(engine="vosk", sources={"vosk": source})
        project.up()
    finally:
        site.shutdown()
    assert project.health()["model"] == name
    assert models(project) == [name]
    assert project.unchanged()
    project.set(sources=None)


def test_an_engine_of_the_operator_s_own(project: Project) -> None:
    engine = project.root / "mine"
    shutil.copytree(project.root / LIGHT, engine)
    custom = {
        "install": "./mine/install.sh",
        "unit": "./mine/engine.service",
        "files": "./mine",
    }
    project.set(
        engine="custom", model="mine", quantization="int8", language="fr", keepAlive="7m",
        custom=custom, check={"words": ""},
    )  # fmt: skip
    said = project.up()
    assert "light is installed" in said
    assert project.unchanged()
    project.set(language="de")
    refused = r"requests are refused meanwhile \(\d+\.\d s the last time\)"
    assert re.search(refused, project.pulumi("preview").stdout)
    project.set(language="fr")
    assert project.health() == {
        "STT_MODEL": "mine",
        "STT_LANGUAGE": "fr",
        "STT_COMPUTE_TYPE": "int8",
        "STT_DEVICE": "cpu",
        "STT_KEEP_ALIVE": "420",
    }
    assert project.outputs()["stt_check"]["text"].endswith(" bytes")
    url = project.outputs()["stt_url"]
    assert post_recording(url, RECORDINGS / "hello_world.wav", "mine", "wrong").status == 401
    project.inside("sh", "-c", "echo '# by hand' >>/etc/systemd/system/custom.service")
    assert "custom.service" in project.pulumi("drift").stdout
    # One that does not come up leaves the old one there.
    unit = engine / "engine.service"
    unit.write_text(unit.read_text().replace("engine.py", "nowhere.py"))
    assert "the previous one was restored" in project.fails()
    assert project.health()["STT_MODEL"] == "mine"
    assert "does not say what it has loaded" in project.operation("vram")


def test_back_to_the_light_engine_and_the_old_models_are_gone(project: Project) -> None:
    project.set(
        engine="faster-whisper", model="./models/tiny-digits", quantization="int8", language=None,
        keepAlive=None, custom=None, check=None,
    )  # fmt: skip
    assert "any words will do" not in project.up()
    check = project.outputs()["stt_check"]
    assert (check["proven"], check["word_error_rate"]) == (True, 0.0)
    assert project.transcribe("hello_world").json["text"] == "hello world"
    (model,) = models(project)
    assert model.startswith("tiny-digits-")


def test_a_recording_of_the_operator_s_own_has_to_come_back_as_its_words(project: Project) -> None:
    shutil.copy(project.root / "recordings/hello_world.wav", project.root / "mine.wav")
    project.set(check={"recording": "mine.wav", "words": "four five six"})
    assert 'transcribed a recording of "four five six" as "hello world"' in project.fails()
    project.set(check={"recording": "mine.wav", "words": "Hello, world!"})
    project.up()
    check = project.outputs()["stt_check"]
    assert (check["text"], check["word_error_rate"]) == ("hello world", 0.0)
    assert "file=@mine.wav" in project.outputs()["stt_curl"]
    project.set(check=None)  # with the next `up`


@pytest.mark.seldom
def test_models_stay_where_they_are_to_be_kept(project: Project) -> None:
    shutil.copytree(project.root / "models/tiny-digits", project.root / "models/second")
    project.set(keepModels=True, model="./models/second")
    project.up()
    assert len(models(project)) == 2
    project.set(keepModels=False)
    project.up()
    (model,) = models(project)
    assert model.startswith("second-")
    project.set(model="./models/tiny-digits")
    project.up()


def test_a_model_that_transcribes_nothing_does_not_replace_the_old_one(project: Project) -> None:
    """It loads: that it says nothing shows only once it is asked, and then the old one is back."""
    mute = mute_model(project)
    project.set(model=mute)
    said = project.fails()
    assert "returned no text" in said and "the previous one was restored" in said
    assert any(model.startswith("tiny-digits-") for model in models(project))
    assert project.health()["model"] == "./models/tiny-digits"
    outputs = project.outputs()
    recording = RECORDINGS / "hello_world.wav"
    answer = post_recording(outputs["stt_url"], recording, "whisper-1", outputs["stt_api_key"])
    assert answer.json["text"] == "hello world"
    project.set(model="./models/tiny-digits")
    project.up()
    assert project.unchanged()


def test_flush_frees_the_device_safely_while_a_transcription_runs(project: Project) -> None:
    outputs = project.outputs()
    statuses: list[int] = []

    def transcribe() -> None:
        for _ in range(12):
            answer = post_recording(
                outputs["stt_url"], RECORDINGS / "two_zero_two_six.wav", "whisper-1",
                outputs["stt_api_key"],
            )  # fmt: skip
            statuses.append(answer.status)

    client = threading.Thread(target=transcribe)
    client.start()
    assert "gpu-server: STT unloaded" in project.operation("flush")
    client.join()
    assert statuses == [200] * 12
    project.operation("flush")
    assert "had nothing loaded" in project.operation("flush")
    assert project.transcribe("hello_world").json["text"] == "hello world"


@pytest.mark.seldom
def test_what_models_take_is_measured_beside_the_catalogue(project: Project) -> None:
    head, *rows = project.operation("measure").splitlines()[-3:]
    assert head.split()[:4] == ["model", "type", "measured", "catalogue"]
    assert [row.split()[:2] for row in rows] == [["tiny", "int8"], ["tiny", "float32"]]
    for row in rows:
        measured, catalogue = int(row.split()[2]), int(row.split()[4])
        assert 100 < measured < 4000 and 100 < catalogue < 4000
    assert project.transcribe("hello_world").json["text"] == "hello world"


def test_an_operation_on_a_stack_that_is_not_there_is_said(project: Project) -> None:
    python = str(project.root / ".venv" / "bin" / "python")
    done = run(python, "-m", "operations", "vram", "--stack", "nowhere", cwd=project.root)
    assert done.returncode == 1 and "there is no stack nowhere. Stacks: " in done.stderr
