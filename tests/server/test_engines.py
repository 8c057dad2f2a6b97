"""The other engines behind the same routes, and the model's time on the device.

Parakeet's and Vosk's models here have random weights: they load for real, and their words mean
nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import httpx
import pytest

from tests.server.server import NAME, SPEECH, Running, running, settings
from tests.tiny_parakeet import make_model as make_parakeet
from tests.tiny_vosk import make_model as make_vosk

LANGUAGES = {"parakeet": ["de", "en", "fr"], "vosk": ["en"]}
FULL = "The device's memory is full"
TYPES = {"parakeet": "int8", "vosk": "float32"}


@pytest.fixture(scope="module", params=["parakeet", "vosk"])
def engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    name: str = request.param
    directory = tmp_path_factory.mktemp(name)
    make = {"parakeet": make_parakeet, "vosk": make_vosk}[name]
    languages = ", ".join(f'"{code}"' for code in LANGUAGES[name])
    with running(
        directory,
        STT_ENGINE=name,
        STT_MODEL_DIR=str(make(directory / "model")),
        STT_COMPUTE_TYPE=TYPES[name],
        STT_LANGUAGES=f"[{languages}]",
    ) as server:
        yield server


def name_of(engine: Running) -> str:
    return str(engine.get("/health").json()["engine"])


def test_it_hears_words_with_their_times(engine: Running) -> None:
    answer = engine.post(response_format="verbose_json", **{"timestamp_granularities[]": "word"})
    said = answer.json()
    assert answer.status_code == 200, said
    assert said["text"].split() == [word["word"] for word in said["words"]] != []
    assert "  " not in said["text"] and said["text"] == said["text"].strip()
    times = [time for word in said["words"] for time in (word["start"], word["end"])]
    assert times == sorted(times) and times[0] >= 0 and times[-1] <= said["duration"] + 0.1


@pytest.mark.parametrize("kind", ["json", "text", "srt", "vtt"])
def test_every_format_is_there(engine: Running, kind: str) -> None:
    answer = engine.post(response_format=kind, model="whisper-1")
    assert answer.status_code == 200 and answer.text.strip()


def test_health_says_what_runs(engine: Running) -> None:
    health = engine.get("/health").json()
    assert (health["device"], health["compute_type"]) == ("cpu", TYPES[name_of(engine)])
    assert health["loaded"] is True and health["version"]


def test_a_language_that_it_lacks_is_refused(engine: Running) -> None:
    assert engine.post(language="ja").status_code == 400
    assert engine.post(language="en").status_code == 200


def test_it_does_not_translate_and_says_so(engine: Running) -> None:
    answer = engine.post(path="/v1/audio/translations")
    assert answer.status_code == 400
    assert f"engine {name_of(engine)} does not translate" in answer.json()["error"]["message"]


def test_its_memory_can_be_freed_and_comes_back(engine: Running) -> None:
    assert engine.get("/api/ps").json() == {"models": [NAME]}
    url = f"{engine.url}/api/ps/{NAME}"
    assert httpx.delete(url, timeout=60).status_code == 200
    assert engine.get("/api/ps").json() == {"models": []}
    assert httpx.delete(url, timeout=60).status_code == 404
    assert engine.get("/health").json()["loaded"] is False
    assert engine.post().status_code == 200  # a request brings it back
    assert engine.get("/api/ps").json() == {"models": [NAME]}
    assert httpx.post(url, timeout=60).status_code == 409


def test_a_long_recording_is_heard_in_parts(engine: Running) -> None:
    import numpy as np

    from tests.server.server import speech, wav

    quiet = np.zeros(16000)
    answer = engine.post(
        wav(np.concatenate([speech(), quiet] * 20)), response_format="verbose_json"
    )
    assert len(answer.json()["segments"]) > 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"STT_ENGINE": "whispr"},
            "STT_ENGINE is 'whispr'; allowed: owhisper, parakeet, vosk, whi",
        ),
        ({"STT_ENGINE": "owhisper", "STT_DEVICE": "cuda"}, "OWhisper runs only on cpu"),
        ({"STT_ENGINE": "owhisper"}, "which holds no model.ggml"),
        (
            {"STT_ENGINE": "vosk", "STT_DEVICE": "cuda"},
            "is 'cuda', and Vosk has only cpu",
        ),
        ({"STT_ENGINE": "vosk"}, "STT_COMPUTE_TYPE is 'int8', and Vosk has only float32"),
        (
            {"STT_ENGINE": "parakeet", "STT_COMPUTE_TYPE": "float16"},
            "STT_COMPUTE_TYPE is 'float16', and Parakeet's files are float32 or int8",
        ),
        ({"STT_ENGINE": "parakeet"}, "which holds no vocab.txt"),
        ({"STT_KEEP_ALIVE": "-2"}, "STT_KEEP_ALIVE is '-2'; allowed: -1 to"),
        ({"STT_LANGUAGES": "en"}, "STT_LANGUAGES is 'en'; allowed: a JSON list"),
    ],
)
def test_what_an_engine_cannot_do_ends_the_start(changes: dict[str, str], said: str) -> None:
    from stt_server.recognizer import load_recognizer
    from stt_server.settings import SettingsError, read_settings

    with pytest.raises(SettingsError) as caught:
        load_recognizer(read_settings(settings(**changes)))
    assert said in str(caught.value)


def test_a_broken_model_does_not_load(tmp_path: Path) -> None:
    from stt_server.recognizer import load_recognizer
    from stt_server.settings import SettingsError, read_settings

    for name, make, file in (
        ("vosk", make_vosk, "graph/HCLG.fst"),
        ("parakeet", make_parakeet, "encoder-model.int8.onnx"),
    ):
        directory = make(tmp_path / name)
        (directory / file).write_bytes(b"broken")
        values = settings(
            STT_ENGINE=name, STT_MODEL_DIR=str(directory), STT_COMPUTE_TYPE=TYPES[name]
        )
        with pytest.raises(SettingsError, match="which does not run"):
            load_recognizer(read_settings(values))


# The model's time on the device.


def test_an_idle_model_is_unloaded_and_a_request_brings_it_back(tmp_path: Path) -> None:
    with running(tmp_path, STT_KEEP_ALIVE="1") as server:
        server.wait_for_log("the model is unloaded: it was idle", 60)
        health = server.get("/health").json()
        assert (health["loaded"], health["device"], health["compute_type"]) == (
            False,
            "cpu",
            "int8_float32",
        )
        assert server.post().json()["text"] == "one two three"
        assert "the model is loaded again after" in server.log


def test_a_model_that_is_used_stays(tmp_path: Path) -> None:
    with running(tmp_path, STT_KEEP_ALIVE="8") as server:
        for _ in range(7):
            assert server.post().status_code == 200
            time.sleep(1.5)
        assert "unloaded" not in server.log


def test_minus_one_keeps_it_for_ever(tmp_path: Path) -> None:
    with running(tmp_path, STT_KEEP_ALIVE="-1") as server:
        time.sleep(3)
        assert server.get("/health").json()["loaded"] is True


def test_an_unload_waits_for_the_transcription_that_runs(slow: Running) -> None:
    import numpy as np

    from tests.server.server import speech, wav

    answers: list[int] = []
    audio = wav(np.tile(speech(), 4))
    client = threading.Thread(target=lambda: answers.append(slow.post(audio).status_code))
    client.start()
    slow.wait_for_work()
    assert httpx.delete(f"{slow.url}/api/ps/{NAME}", timeout=120).status_code == 200
    client.join()
    assert answers == [200]
    assert slow.get("/api/ps").json() == {"models": []}


class _Busy:
    """A model that CTranslate2 still uses the first times, and so does not unload."""

    def __init__(self, times: int) -> None:
        self.times = times

    @property
    def model_is_loaded(self) -> bool:
        return self.times >= 0

    def unload_model(self, to_cpu: bool) -> None:
        self.times -= 1


def test_an_unload_is_done_when_it_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    from stt_server.recognizers import whisper
    from stt_server.settings import read_settings

    recognizer = whisper.create(read_settings(settings()))
    recognizer.load()
    assert recognizer.model is not None
    monkeypatch.setattr(recognizer.model, "model", _Busy(3))
    recognizer.unload()
    assert not recognizer.loaded
    monkeypatch.setattr(recognizer.model, "model", _Busy(1_000_000))
    monkeypatch.setattr(whisper, "_UNLOAD_DEADLINE", 0.1)
    with pytest.raises(TimeoutError, match="still uses it"):
        recognizer.unload()


@pytest.mark.parametrize(
    ("says", "status", "message"),
    [
        ("CUDA failed with error out of memory", 503, FULL),
        ("cuBLAS failed with status CUBLAS_STATUS_ALLOC_FAILED", 503, FULL),
        ("Failed to allocate memory for requested buffer", 503, FULL),
        ("something else", 500, "The transcription failed: RuntimeError"),
    ],
)
def test_a_full_card_is_said_and_the_next_request_is_heard(
    monkeypatch: pytest.MonkeyPatch, says: str, status: int, message: str
) -> None:
    """The words are the engines' own; the first was seen on a card that was full."""
    from stt_server.service import Service, create_app
    from stt_server.settings import read_settings

    service = Service(read_settings(settings()))
    heard = service.recognizer.transcribe
    answers: list[httpx.Response] = []

    def full(*_: object) -> None:
        raise RuntimeError(says)

    async def ask() -> None:
        transport = httpx.ASGITransport(create_app(service), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            for transcribe in (full, heard):
                monkeypatch.setattr(service.recognizer, "transcribe", transcribe)
                files = {"file": SPEECH.read_bytes()}
                answers.append(
                    await client.post("/v1/audio/transcriptions", data={"model": NAME}, files=files)
                )

    anyio.run(ask)
    first, second = answers
    assert (first.status_code, second.status_code) == (status, 200)
    assert message in first.json()["error"]["message"]
    assert second.json()["text"] == "one two three"


def test_a_model_that_finds_no_room_ends_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    from stt_server.service import Service
    from stt_server.settings import SettingsError, read_settings

    def load(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA failed with error out of memory")

    monkeypatch.setattr("faster_whisper.WhisperModel", load)
    with pytest.raises(SettingsError, match=r"too little free memory\. See what holds it"):
        Service(read_settings(settings()))


def test_another_model_s_name_is_not_unloaded(server: Running) -> None:
    for method in ("POST", "DELETE"):
        url = f"{server.url}/api/ps/large-v3"
        assert httpx.request(method, url, headers=server.headers).status_code == 404
    assert httpx.delete(f"{server.url}/api/ps/{NAME}", timeout=60).status_code == 401
