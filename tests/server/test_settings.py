"""A setting that cannot take effect ends the start with one sentence that names it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.server.server import MODEL, settings

Refusal = Callable[..., str]


@pytest.fixture
def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refusal:
    """What the server says of wrong settings, without its name."""
    from stt_server import __main__ as program

    def served(_: Any) -> None:
        raise AssertionError("the settings were taken")

    monkeypatch.setattr(program.Server, "run", served)

    def refuse(**changes: str) -> str:
        monkeypatch.setattr("os.environ", settings(**changes))
        assert program.main() == 78
        said = capsys.readouterr().err
        assert said.startswith("stt_server: ") and said.endswith(".\n") and said.count("\n") == 1
        return said.removeprefix("stt_server: ")

    return refuse


@pytest.mark.parametrize(
    "name", ["STT_HOST", "STT_MODEL_DIR", "STT_MODEL_NAME", "STT_COMPUTE_TYPE"]
)
def test_what_must_be_set(refusal: Refusal, name: str) -> None:
    assert refusal(**{name: ""}) == f"{name} is not set.\n"


@pytest.mark.parametrize("name", ["STT_MODEL", "STT_LANG", "STT_", "STT_device"])
def test_unknown_settings(refusal: Refusal, name: str) -> None:
    assert refusal(**{name: ""}).startswith(f"{name} is unknown; known: STT_ENGINE, ")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("STT_PORT", ["0", "65536", "-1", "80a", "", "٣", "1e3"]),
        ("STT_CPU_THREADS", ["-1", "two", "1025"]),
        ("STT_AUDIO_MINUTES", ["0", "1441", "1h"]),
        ("STT_UPLOAD_MB", ["0", "1.5", "10001"]),
        ("STT_WAITING", ["0", "1001", "-1"]),
        ("STT_MODEL_ALIASES", ["", "whisper-1", '"whisper-1"', "[1]", '[""]', "{}"]),
        ("STT_DEVICE", ["gpu", "auto", ""]),
        ("STT_LANGUAGE", ["xx", "EN", "english", "fr-FR"]),
        ("STT_LANGUAGE", ["fr", "yue"]),  # the model knows only English
        ("STT_COMPUTE_TYPE", ["int4", "default", "auto", "INT8"]),
    ],
)
def test_wrong_values(refusal: Refusal, name: str, values: list[str]) -> None:
    for value in values:
        assert refusal(**{name: value}).startswith(f"{name} is {value!r}")


@pytest.mark.parametrize("compute_type", ["float16", "int8_float16", "bfloat16", "int8_bfloat16"])
def test_a_compute_type_that_a_cpu_would_silently_replace(
    refusal: Refusal, compute_type: str
) -> None:
    said = refusal(STT_COMPUTE_TYPE=compute_type)
    assert said.startswith(f"STT_COMPUTE_TYPE is '{compute_type}', which this cpu cannot run")
    assert "allowed: " in said and "float32" in said and "int8" in said


def test_cuda_where_there_is_none(refusal: Refusal) -> None:
    import ctranslate2

    if ctranslate2.get_cuda_device_count():
        pytest.skip("this machine has CUDA")
    assert refusal(STT_DEVICE="cuda").startswith("STT_DEVICE is 'cuda', which does not work here")


@pytest.mark.parametrize("missing", ["model.bin", "config.json", "tokenizer.json"])
def test_an_incomplete_model(refusal: Refusal, tmp_path: Path, missing: str) -> None:
    model = tmp_path / "model"
    shutil.copytree(MODEL, model)
    (model / missing).unlink()
    assert refusal(STT_MODEL_DIR=str(model)) == (
        f"STT_MODEL_DIR is {str(model)!r}, which holds no {missing}.\n"
    )


def test_a_broken_model(refusal: Refusal, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(MODEL, model)
    (model / "model.bin").write_bytes(b"GGUF" * 1000)
    assert refusal(STT_MODEL_DIR=str(model)).startswith(
        f"STT_MODEL_DIR is {str(model)!r}, which does not run: "
    )


def test_a_language_newer_than_the_model(
    refusal: Refusal, tmp_path: Path, many_languages: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(many_languages, model)
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    for token in tokenizer["added_tokens"]:
        if token["content"] == "<|yue|>":
            token["content"] = "<|something|>"
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    said = refusal(STT_MODEL_DIR=str(model), STT_LANGUAGE="yue")
    assert said.startswith("STT_LANGUAGE is 'yue'; this model knows: ")
    assert " fr," in said and "yue" not in said.removeprefix("STT_LANGUAGE is 'yue'")


@pytest.mark.parametrize(
    "content", [None, b"", b" \n", b"secret\ntwo\n", b"\xff\xfe", "ключ".encode()]
)
def test_a_key_file_without_a_key(refusal: Refusal, tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    said = refusal(STT_API_KEY_FILE=str(file))
    assert said.startswith(f"STT_API_KEY_FILE is {str(file)!r}")
    assert "secret" not in said


def test_no_threads_means_all_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    from stt_server.service import Service
    from stt_server.settings import SettingsError, read_settings

    asked: list[int] = []

    def load(*_: Any, cpu_threads: int, **__: Any) -> None:
        asked.append(cpu_threads)
        raise RuntimeError

    monkeypatch.setattr("faster_whisper.WhisperModel", load)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(7)))
    for threads in ("0", "3"):
        with pytest.raises(SettingsError):
            Service(read_settings(settings(STT_CPU_THREADS=threads)))
    assert asked == [7, 3]
