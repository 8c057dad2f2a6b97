"""The HTTP interface, from the outside."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import av
import httpx
import numpy as np
import pytest
from openai import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    OpenAI,
)

from tests.server import attacks
from tests.server.gate import gated
from tests.server.server import KEY, NAME, RECORDINGS, SPEECH, Running, speech, wait, wav

WORDS = "one two three"


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


@pytest.mark.parametrize("recording", sorted(RECORDINGS.glob("*.wav")), ids=lambda p: p.stem)
def test_a_recording_comes_back_as_its_words(server: Running, recording: object) -> None:
    path = RECORDINGS / str(recording)
    answer = server.post(path)
    assert (answer.status_code, answer.json()) == (200, {"text": path.stem.replace("_", " ")})


def test_health_needs_no_key_and_says_what_runs(server: Running) -> None:
    answer = httpx.get(f"{server.url}/health", timeout=60).json()
    assert answer.pop("version")
    assert answer == {
        "status": "ok",
        "engine": "whisper",
        "model": NAME,
        "loaded": True,
        "keep_alive": -1,
        "working": 0.0,
        "device": "cpu",
        "compute_type": "int8_float32",
        "language": "",
    }


# Formats


def test_text(server: Running) -> None:
    answer = server.post(response_format="text")
    assert answer.text == WORDS + "\n"
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


def test_srt(server: Running) -> None:
    answer = server.post(response_format="srt")
    assert answer.text == f"1\n00:00:00,000 --> 00:00:01,300\n{WORDS}\n"
    assert answer.headers["content-type"].startswith("application/x-subrip")


def test_vtt(server: Running) -> None:
    answer = server.post(response_format="vtt")
    assert answer.text == f"WEBVTT\n\n00:00:00.000 --> 00:00:01.300\n{WORDS}\n"
    assert answer.headers["content-type"].startswith("text/vtt")


def test_verbose_json(server: Running) -> None:
    body = server.post(response_format="verbose_json").json()
    assert (body["task"], body["language"], body["text"]) == ("transcribe", "en", WORDS)
    assert body["duration"] == pytest.approx(1.315, abs=0.001)
    (segment,) = body["segments"]
    assert segment["text"].strip() == WORDS
    assert 0 == segment["start"] < segment["end"] <= body["duration"]
    assert "words" not in body


def test_times_of_words(server: Running) -> None:
    body = server.post(
        response_format="verbose_json", **{"timestamp_granularities[]": ["word", "segment"]}
    ).json()
    assert [word["word"] for word in body["words"]] == WORDS.split()
    starts = [word["start"] for word in body["words"]]
    assert starts == sorted(starts)
    assert all(word["start"] <= word["end"] <= body["duration"] for word in body["words"])


@pytest.mark.parametrize(
    ("container", "codec", "rate"),
    [
        ("mp3", "libmp3lame", 22050),
        ("ogg", "libopus", 48000),
        ("webm", "libopus", 48000),
        ("ipod", "aac", 44100),
        ("flac", "flac", 16000),
    ],
)
def test_what_browsers_and_phones_record(
    server: Running, container: str, codec: str, rate: int
) -> None:
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate)
        assert isinstance(stream, av.AudioStream)
        samples = (speech() * 32767).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.rate = 16000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            out.mux(packet)
    assert server.post(file.getvalue()).json() == {"text": WORDS}


@pytest.mark.parametrize("kind", ["silence", "hum", "noise"])
def test_what_is_no_speech_has_no_words(server: Running, kind: str) -> None:
    time = np.arange(10 * 16000) / 16000
    samples = {
        "silence": time * 0,
        "hum": np.sin(time * 2 * np.pi * 50) * 0.1,
        "noise": np.random.default_rng(0).standard_normal(time.size) * 0.01,
    }
    answer = server.post(wav(samples[kind]), response_format="verbose_json")
    assert (answer.json()["text"], answer.json()["duration"]) == ("", 10)


# OpenAI's own client


def test_openai_client(client: OpenAI) -> None:
    transcriptions = client.audio.transcriptions
    assert transcriptions.create(file=SPEECH, model=NAME).text == WORDS
    assert transcriptions.create(file=SPEECH, model="whisper-1", language="en").text == WORDS
    assert transcriptions.create(file=SPEECH, model=NAME, response_format="text") == WORDS + "\n"
    verbose = transcriptions.create(
        file=SPEECH, model=NAME, response_format="verbose_json", timestamp_granularities=["word"]
    )
    assert verbose.words is not None
    assert [word.word for word in verbose.words] == WORDS.split()
    assert client.audio.translations.create(file=SPEECH, model=NAME).text == WORDS


def test_openai_client_streams(client: OpenAI) -> None:
    stream = client.audio.transcriptions.create(file=SPEECH, model=NAME, stream=True)
    *deltas, done = list(stream)
    assert deltas
    text = "".join(event.delta for event in deltas if event.type == "transcript.text.delta")
    assert text.strip() == WORDS
    assert done.type == "transcript.text.done" and done.text == WORDS


def test_openai_client_lists_models(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [NAME, "whisper-1"]
    assert client.models.retrieve(NAME).id == NAME
    with pytest.raises(NotFoundError):
        client.models.retrieve("gpt-4")


def test_openai_client_understands_the_errors(client: OpenAI, server: Running) -> None:
    with pytest.raises(NotFoundError) as unknown:
        client.audio.transcriptions.create(file=SPEECH, model="large-v3")
    assert unknown.value.code == "model_not_found" and NAME in str(unknown.value)
    with pytest.raises(BadRequestError) as no_audio:
        client.audio.transcriptions.create(file=b"no audio", model=NAME)
    assert no_audio.value.param == "file"
    with (
        OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0) as stranger,
        pytest.raises(AuthenticationError) as refused,
    ):
        stranger.models.list()
    assert refused.value.code == "invalid_api_key"
    with pytest.raises(APIStatusError) as large:
        client.audio.transcriptions.create(file=b"x" * (2 << 20), model=NAME)
    assert large.value.status_code == 413


# Errors

SDP = b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 55555 RTP/AVP 0\n"
PLAYLIST = f"ffconcat version 1.0\nfile '{SPEECH}'\n".encode()
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489"
    "0000000d49444154789c6360000002000001e221bc330000000049454e44ae426082"
)


def error(answer: httpx.Response) -> tuple[int, str | None]:
    """The status and param of an error in OpenAI's form."""
    assert set(answer.json()) == {"error"}
    body = answer.json()["error"]
    assert set(body) == {"message", "type", "param", "code"}
    assert body["message"] and body["type"] == "invalid_request_error"
    return answer.status_code, body["param"]


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"model": None}, 400, "model"),
        ({"model": ""}, 400, "model"),
        ({"model": "large-v3"}, 404, "model"),
        ({"model": NAME.upper()}, 404, "model"),
        ({"language": "xx"}, 400, "language"),
        ({"language": "fr"}, 400, "language"),
        ({"temperature": "2"}, 400, "temperature"),
        ({"temperature": "nan"}, 400, "temperature"),
        ({"temperature": "warm"}, 400, "temperature"),
        ({"response_format": "xml"}, 400, "response_format"),
        ({"timestamp_granularities[]": "page"}, 400, "timestamp_granularities[]"),
        ({"audio": None}, 400, "file"),
        ({"audio": b""}, 400, "file"),
        ({"audio": b"no audio at all" * 100}, 400, "file"),
        ({"audio": wav([])}, 400, "file"),
        ({"audio": SPEECH.read_bytes()[:30]}, 400, "file"),
        ({"audio": PNG}, 400, "file"),
        ({"audio": SDP}, 400, "file"),
        ({"audio": PLAYLIST}, 400, "file"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_a_wrong_request(
    server: Running, fields: dict[str, object], status: int, param: str
) -> None:
    began = time.monotonic()
    assert error(server.post(**fields)) == (status, param)
    # It would wait 20 s for packets at the port that SDP names.
    assert time.monotonic() - began < 10, "FFmpeg opened what the file names"


def test_a_body_that_is_no_form(server: Running) -> None:
    url = f"{server.url}/v1/audio/transcriptions"
    body = {"model": NAME}
    assert error(httpx.post(url, json=body, headers=server.headers, timeout=60)) == (400, None)
    assert error(httpx.post(url, data=body, headers=server.headers, timeout=60)) == (400, None)
    headers = {**server.headers, "Content-Type": "multipart/form-data"}
    assert error(httpx.post(url, content=b"x", headers=headers, timeout=60)) == (400, None)


def test_paths_and_methods(server: Running) -> None:
    assert error(server.get("/v1/nothing")) == (404, None)
    assert error(server.get("/v1/audio/transcriptions")) == (405, None)
    assert error(server.get("/v1/models/a/b")) == (404, "model")
    assert server.get(f"/v1/models/{NAME}").json()["id"] == NAME
    assert server.get(f"/v1/models/{NAME.replace('/', '%2F')}").json()["id"] == NAME


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer wrong", KEY, f"Basic {KEY}", f"Bearer {KEY}x"]
)
def test_without_the_key(server: Running, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    for path in ("/v1/models", "/v1/nothing", "/v1/audio/transcriptions"):
        answer = httpx.get(server.url + path, headers=headers, timeout=60)
        assert error(answer) == (401, None)
        assert answer.headers["www-authenticate"] == "Bearer"
    files = {"file": SPEECH.read_bytes()}
    url = f"{server.url}/v1/audio/transcriptions"
    answer = httpx.post(url, headers=headers, data={"model": NAME}, files=files, timeout=60)
    assert error(answer) == (401, None)


def test_too_large(server: Running) -> None:
    assert error(server.post(b"x" * (1 << 20))) == (413, "file")
    assert server.post(wav(np.zeros(500_000))).status_code == 200

    def endless() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
        for _ in range(20):
            yield b"x" * 100_000

    answer = httpx.post(
        f"{server.url}/v1/audio/transcriptions",
        headers={**server.headers, "Content-Type": "multipart/form-data; boundary=b"},
        content=endless(),
        timeout=60,
    )
    assert error(answer) == (413, "file")


# Many at once


def test_ten_at_once_are_all_right(server: Running) -> None:
    recordings = sorted(RECORDINGS.glob("*.wav"))
    work = [recordings[number % len(recordings)] for number in range(10)]
    with ThreadPoolExecutor(len(work)) as pool:
        answers = list(pool.map(server.post, work))
    assert [answer.json().get("text") for answer in answers] == [
        path.stem.replace("_", " ") for path in work
    ]


def test_health_answers_while_the_model_works(slow: Running) -> None:
    # Four windows of 30 s, so that it works for a while on a fast machine too.
    minutes = wav(np.tile(np.append(speech(), np.zeros(1600)), 84))
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(slow.post, minutes)
        wait(lambda: slow.get("/health").json()["working"] >= 0.3, 60)
        assert not job.done()
        assert job.result().status_code == 200
    assert slow.get("/health").json()["working"] == 0


def test_health_tells_since_when_it_works_on_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two, the second one's time begins where the first one is done."""
    with ThreadPoolExecutor(2) as pool, gated(monkeypatch) as gate:

        def working() -> float:
            return float(gate.server.get("/health").json()["working"])

        begun = time.monotonic()
        jobs = [pool.submit(gate.post) for _ in range(2)]
        for _ in jobs:
            assert gate.begun.acquire(timeout=60)
            wait(lambda: working() >= 0.3, 60)
            assert working() < time.monotonic() - begun + 0.1  # it is rounded
            begun = time.monotonic()
            gate.let.release()
        assert [job.result(60) for job in jobs] == [200, 200]
        assert working() == 0


def test_a_client_that_leaves_the_line_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("stt_server.service.log.info", lambda text, *_, **__: said.append(text))
    with ThreadPoolExecutor(1) as pool, gated(monkeypatch) as gate:
        first = pool.submit(gate.post)
        assert gate.begun.acquire(timeout=60)
        with attacks.leaving(gate.server, SPEECH.read_bytes()):
            wait(lambda: gate.waiting == 1, 60)
        wait(lambda: any("a client left" in text for text in said), 60)
        assert not first.done(), "it left after its turn"
        gate.open()
        assert (first.result(60), gate.post()) == (200, 200)
    assert sum(" s of audio in " in text for text in said) == 2


def test_a_client_that_leaves_frees_the_device(slow: Running) -> None:
    left = slow.log.count("a client left")
    minutes = wav(np.tile(np.append(speech(), np.zeros(1600)), 150))  # 8 windows of 30 s
    with attacks.leaving(slow, minutes):
        slow.wait_for_work()
    assert slow.post().status_code == 200
    assert slow.log.count("a client left") == left + 1
    assert "212." not in slow.log, "the whole recording was transcribed for nobody"


# The log


def test_the_log_tells_times_and_no_secrets(server: Running) -> None:
    server.post(RECORDINGS / "hello_world.wav", prompt="")
    assert "1.36 s of audio in " in server.log and "real-time factor" in server.log
    assert '"POST /v1/audio/transcriptions HTTP/1.1" 200' in server.log
    for secret in (KEY, "hello", "world", "one two"):
        assert secret not in server.log
    assert json.dumps(WORDS) not in server.log
