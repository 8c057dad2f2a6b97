"""OWhisper, where an archive with its program (bin/owhisper-server, lib/) is at hand.

``STT_TEST_OWHISPER`` names it. The model has random weights: it loads for real in whisper.cpp, and
its words mean nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.e2e.locked import lock_files
from tests.e2e.project import Project, left_of
from tests.model_hub import ModelHub
from tests.tiny_ggml import make_model

DOMAIN, SUBNET = "stt-e2e-w", "10.213.55"
ARCHIVE = os.environ.get("STT_TEST_OWHISPER", "")
pytestmark = pytest.mark.skipif(not ARCHIVE, reason="STT_TEST_OWHISPER names no archive")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    stack = Project(tmp_path_factory.mktemp("owhisper"), DOMAIN, SUBNET)
    make_model(stack.root / "models" / "tiny-ggml")
    stack.set(
        engine="owhisper",
        model="./models/tiny-ggml",
        quantization=None,
        check={"words": ""},  # its weights are random
        sources={"owhisper": ARCHIVE},
    )
    try:
        stack.up()
        yield stack
    finally:
        stack.destroy()
    assert left_of(DOMAIN) == []


def test_it_transcribes_behind_the_same_endpoint(project: Project) -> None:
    outputs = project.outputs()
    assert outputs["stt_check"]["text"]
    assert outputs["stt_check"]["device"] == "cpu"
    assert project.unchanged()
    for model in (None, "whisper-1"):
        for kind in ("json", "verbose_json", "srt"):
            answer = project.transcribe("hello_world", model, response_format=kind)
            assert answer.status == 200 and answer.body.strip()
    assert project.health()["engine"] == "owhisper"


def test_its_own_server_is_on_the_loopback_only(project: Project) -> None:
    listening = project.inside("ss", "-H", "-l", "-t", "-n", "-p")
    lines = [line for line in listening.splitlines() if "owhisper" in line]
    assert lines and all(" 127.0.0.1:" in line for line in lines)


def test_a_dead_process_comes_back_with_the_next_request(project: Project) -> None:
    project.inside("pkill", "-KILL", "-f", "owhisper-server serv[e]")  # not itself
    assert project.transcribe("hello_world").status == 200


def test_idle_it_holds_no_memory(project: Project) -> None:
    project.set(keepAlive="1s")
    project.up()
    wait = 'until ! pgrep -f "$0" >/dev/null; do sleep 0.3; done'
    project.inside("timeout", "300", "sh", "-c", wait, "owhisper-server serv[e]")
    assert project.transcribe("hello_world").status == 200
    project.set(keepAlive=None)
    project.up()


def test_a_model_is_fetched_by_its_name(
    project: Project, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("hub")
    make_model(directory).rename(directory / "ggml-base-q8_0.bin")
    lock_files(project, "pkg:huggingface/ggerganov/whisper.cpp", directory.iterdir())
    hub = ModelHub(f"{SUBNET}.254", {"ggerganov/whisper.cpp": directory})
    try:
        project.set(model="base", sources={"owhisper": ARCHIVE, "models": hub.url})
        project.up()
    finally:
        hub.close()
    assert project.health()["model"] == "base"
    assert project.transcribe("hello_world", "base").status == 200


def test_a_broken_model_leaves_the_old_one_running(project: Project) -> None:
    broken = project.root / "models" / "broken"
    broken.mkdir()
    (broken / "model.ggml").write_bytes(b"this is no model")
    project.set(model="./models/broken")
    said = project.fails()
    assert "stt:model ./models/broken does not load" in said
    assert project.transcribe("hello_world", "base").status == 200
    project.set(model="base")
    project.up()
    assert project.unchanged()
