"""What hostile and broken clients meet, and that the others go on."""

from __future__ import annotations

import asyncio
import io
import resource
import socket
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from openai import OpenAI, RateLimitError

from stt_server import audio, protocol
from stt_server.audio import SAMPLING_RATE, SEARCH, SLICE, AudioError, StoppedError, slices
from stt_server.guard import RequestError, UploadLimit
from tests.server import attacks
from tests.server.attacks import idle_connections, silence, talk
from tests.server.gate import gated
from tests.server.server import NAME, SPEECH, Running, running, served, speech, wait, wav

pytestmark = pytest.mark.seldom

MIB = 1 << 20


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server that takes two minutes and 5 MiB."""
    limits = {"STT_AUDIO_MINUTES": "2", "STT_UPLOAD_MB": "5"}
    with running(tmp_path_factory.mktemp("strict"), **limits) as server:
        yield server


# Length


def test_a_recording_comes_in_slices_that_are_cut_where_it_is_quiet() -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, SAMPLING_RATE * 400)
    quiet = SAMPLING_RATE * (SLICE - 5)
    noise[quiet : quiet + SAMPLING_RATE // 2] = 0
    parts = list(slices(io.BytesIO(wav(noise)), 10, lambda: False))
    assert parts[0].start == 0 and quiet < len(parts[0].samples) < quiet + SAMPLING_RATE // 2
    for part, following in pairwise(parts):
        assert following.start == part.start + len(part.samples) / SAMPLING_RATE
        assert len(part.samples) <= SLICE * SAMPLING_RATE
    assert [part.last for part in parts] == [False] * (len(parts) - 1) + [True]
    assert len(parts[-1].samples) >= SEARCH * SAMPLING_RATE
    whole = np.concatenate([part.samples for part in parts])
    assert np.abs(whole - noise).max() < 1e-4


@pytest.mark.parametrize("kind", ["flac", "webm"])
def test_a_file_that_is_too_long_is_refused_before_any_of_it_is_heard(kind: str) -> None:
    codec = {"flac": "flac", "webm": "libopus"}[kind]
    file = attacks.encoded(kind, codec, (np.zeros(960_000) for _ in range(5)))
    with pytest.raises(AudioError, match="longer than 4 minutes"):
        next(slices(io.BytesIO(file), 4, lambda: False))


def test_what_is_no_number_is_no_sound() -> None:
    samples = np.array([0.1, np.nan, np.inf, -np.inf] * 400, "<f4").tobytes()
    head = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\3\0\1\0" + (16000).to_bytes(4, "little")
    head += (64000).to_bytes(4, "little") + b"\4\0\x20\0data"
    file = io.BytesIO(head + len(samples).to_bytes(4, "little") + samples)
    [part] = slices(file, 1, lambda: False)
    assert np.isfinite(part.samples).all() and np.abs(part.samples).max() <= 1


def test_a_codec_that_nobody_knows_is_no_audio() -> None:
    """FFmpeg finds a stream in it, and no decoder."""
    known = wav(speech())
    file = known[:20] + b"\x99\x99" + known[22:]
    with pytest.raises(AudioError, match="not audio that can be decoded"):
        next(slices(io.BytesIO(file), 1, lambda: False))


def test_nobody_waits_and_decoding_stops() -> None:
    answers = iter([False] * 10 + [True] * 1_000_000)
    with pytest.raises(StoppedError):
        next(slices(io.BytesIO(silence(30)), 60, lambda: next(answers)))
    assert next(answers), "it went on"


def test_a_few_kilobytes_that_claim_hours(strict: Running) -> None:
    before = attacks.begin(strict)
    answer = strict.post(attacks.hours_in_a_packet())
    assert answer.status_code == 400
    assert "4 samples a second, too few for speech" in answer.json()["error"]["message"]
    assert attacks.memory(strict, "VmHWM") - before < 50


def test_an_hour_of_silence_in_one_packet(server: Running) -> None:
    """This server takes four hours."""
    before = attacks.begin(server)
    answer = server.post(attacks.hour_in_a_packet())
    assert answer.status_code == 400
    assert "not audio that can be decoded" in answer.json()["error"]["message"]
    assert attacks.memory(server, "VmHWM") - before < 250
    assert server.post().status_code == 200


def test_the_length_is_a_setting(strict: Running) -> None:
    assert strict.post(silence(2)).json() == {"text": ""}
    answer = strict.post(silence(3))
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "file")
    assert "longer than 2 minutes" in answer.json()["error"]["message"]


def test_an_hour_takes_no_more_memory_than_minutes(server: Running) -> None:
    server.post(silence(4))
    before = attacks.begin(server)
    assert server.post(silence(12)).json() == {"text": ""}
    assert attacks.memory(server, "VmHWM") - before < 100  # the samples alone are 46 MB


def test_the_words_and_times_of_a_long_recording(server: Running) -> None:
    """Three slices, and in each the words are said once."""
    pause = np.zeros(124 * SAMPLING_RATE)  # longer than a slice
    audio = attacks.encoded("flac", "flac", iter([speech(), pause] * 2 + [speech()]))
    said = server.post(
        audio, response_format="verbose_json", **{"timestamp_granularities[]": "word"}
    ).json()
    assert said["text"] == "one two three one two three one two three"
    assert said["duration"] == pytest.approx(3 * 1.315 + 248, abs=0.1)
    assert f"{said['duration']:.2f} s of audio in " in server.log
    begins = [0, 125.3, 250.6]
    assert [segment["id"] for segment in said["segments"]] == [1, 2, 3]
    for segment, begin in zip(said["segments"], begins, strict=True):
        assert begin - 1 < segment["start"] < segment["end"] < begin + 2
        assert abs(segment["seek"] / 100 - begin) < SLICE
    for word, begin in zip(said["words"], np.repeat(begins, 3), strict=True):
        assert begin - 1 < word["start"] <= word["end"] < begin + 2


# The line


@contextmanager
def patched(monkeypatch: pytest.MonkeyPatch, app: Any, **seconds: float) -> Iterator[Running]:
    """A small application behind the protocol, with other times."""
    for name, value in seconds.items():
        monkeypatch.setattr(protocol, name, value)
    with served(app) as server:
        yield server


def test_a_long_recording_lets_others_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadPoolExecutor(2) as pool, gated(monkeypatch) as gate:
        long = pool.submit(gate.post, silence(5))
        assert gate.begun.acquire(timeout=60)
        short = pool.submit(gate.post)
        wait(lambda: gate.waiting == 1, 60)
        gate.let.release(2)
        assert short.result(60) == 200
        assert not long.done(), "the dictation waited for all of it"
        gate.open()
        assert long.result(60) == 200


def test_an_unload_waits_for_all_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadPoolExecutor(2) as pool, gated(monkeypatch) as gate:
        long = pool.submit(gate.post, silence(5))
        assert gate.begun.acquire(timeout=60)
        unload = pool.submit(httpx.delete, f"{gate.server.url}/api/ps/{NAME}", timeout=60)
        wait(lambda: gate.waiting == 1, 60)
        gate.let.release()
        assert gate.begun.acquire(timeout=60)
        assert not unload.done(), "it was unloaded between two slices"
        gate.open()
        assert (long.result(60), unload.result(60).status_code) == (200, 200)
        assert gate.server.get("/api/ps").json() == {"models": []}


def test_who_comes_to_a_full_line_is_asked_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadPoolExecutor(3) as pool, gated(monkeypatch, STT_WAITING="2") as gate:
        three = [pool.submit(gate.post) for _ in range(3)]
        assert gate.begun.acquire(timeout=60)
        wait(lambda: gate.service.admission.requests == 3, 60)
        answer = gate.server.post()
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "5")
        assert answer.json()["error"] == {
            "message": "Too many requests are waiting already. Try again.",
            "type": "requests",
            "param": None,
            "code": "rate_limit_exceeded",
        }
        with (
            OpenAI(base_url=f"{gate.server.url}/v1", api_key="x", max_retries=0) as client,
            pytest.raises(RateLimitError),
        ):
            client.audio.transcriptions.create(file=b"x", model=NAME)
        # A large upload sees its answer, too.
        status, headers = attacks.send_whole(gate.server, attacks.file_of(100 * MIB))
        assert (status, headers.get("retry-after")) == (429, "5")
        assert gate.server.get("/health").status_code == 200
        gate.open()
        assert [each.result(60) for each in three] == [200] * 3
        assert gate.post() == 200


def test_uploads_that_wait_take_so_much_of_the_disk_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ThreadPoolExecutor(8) as pool, gated(monkeypatch, STT_UPLOAD_MB="4") as gate:
        first = pool.submit(gate.post, talk(2))  # 3.8 MB
        assert gate.begun.acquire(timeout=60)
        before = attacks.disk(gate.server)
        size = 4 * MIB - 65536 * 2
        large = [pool.submit(attacks.send, gate.server, attacks.file_of(size)) for _ in range(6)]
        small = pool.submit(gate.post)
        most = before

        def all_are_there() -> bool:
            nonlocal most
            most = max(most, attacks.disk(gate.server))
            refused = sum(each.done() for each in large)
            return (refused, gate.service.admission.requests) == (5, 3)

        wait(all_are_there, 60)
        assert before < 4.3 and most < 8.5  # two of the largest
        gate.open()
        assert small.result(60) == 200, "a dictation has no room"
        assert (first.result(60), sorted(each.result(60) for each in large)) == (
            200,
            [400, 429, 429, 429, 429, 429],
        )
        assert gate.post(talk(1)) == 200, "the room is not free again"


def test_who_leaves_the_line_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadPoolExecutor(2) as pool, gated(monkeypatch, STT_WAITING="1") as gate:
        first = pool.submit(gate.post)
        assert gate.begun.acquire(timeout=60)
        with attacks.leaving(gate.server, SPEECH.read_bytes()):
            wait(lambda: gate.waiting == 1, 60)
        wait(lambda: gate.service.admission.requests == 1, 60)
        second = pool.submit(gate.post)
        wait(lambda: gate.waiting == 1, 60)
        gate.open()
        assert (first.result(60), second.result(60)) == (200, 200)


def test_who_leaves_while_decoding_frees_the_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, over = threading.Event(), threading.Event()
    opened = audio._open

    class Endless:
        """A recording whose packets hold no sound, and of which there is always another."""

        def demux(self, **_: Any) -> Iterator[Any]:
            begun.set()
            while not over.wait(0.001):
                yield SimpleNamespace(size=0, decode=list)

    monkeypatch.setattr(
        audio, "_open", lambda file: opened(file) if begun.is_set() else nullcontext(Endless())
    )
    with ThreadPoolExecutor(1) as pool, gated(monkeypatch) as gate:
        gate.open()
        try:
            with attacks.leaving(gate.server, SPEECH.read_bytes()):
                assert begun.wait(60)
            assert pool.submit(gate.post).result(60) == 200
        finally:
            over.set()


# The form


@pytest.mark.parametrize(("number", "size"), [(33, 0), (1, 2 << 16), (400, 1 << 20)])
def test_fields_are_few_and_short(strict: Running, number: int, size: int) -> None:
    before = attacks.begin(strict)
    assert attacks.send(strict, attacks.fields_of(number, size)) in (400, 413)
    assert attacks.memory(strict, "VmHWM") - before < 20


def test_one_file(strict: Running) -> None:
    files = [("file", ("a", b"x")), ("file", ("b", b"x"))]
    url = f"{strict.url}/v1/audio/transcriptions"
    answer = httpx.post(url, files=files, headers=strict.headers, timeout=60)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, None)


def test_a_disk_without_room_is_said(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        # A process may not write files beyond its limit: as if the disk was full.
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (2 * MIB, 2 * MIB))
        answer = server.post(talk(3))
        assert answer.status_code == 503
        assert "cannot be kept now" in answer.json()["error"]["message"]
        assert server.post().status_code == 200
        assert "Traceback" not in server.log


CHARSETS = ["undefined", "punycode", "idna", "utf-16", "utf-7", "unicode_escape", "base64", "x"]


@pytest.mark.parametrize("charset", CHARSETS)
def test_a_strange_charset(strict: Running, charset: str) -> None:
    kind = f"multipart/form-data; boundary={attacks.BOUNDARY}; charset={charset}"
    form = attacks.PART % b'"\xff\xfe"' + b"\xff\xff\xd8" + attacks.END
    assert attacks.send(strict, form, kind) == 400


@pytest.mark.parametrize(
    ("charset", "fields"),
    [
        ("punycode", {"model": "x-", **{f"x{n}-": "-" + "c" * 65_000 for n in range(30)}}),  # slow
        ("unicode_escape", {"prompt": r"\ud800"}),  # no text
        ("utf-7", {"prompt": "+2AA-"}),
    ],
)
def test_a_charset_that_python_knows(strict: Running, charset: str, fields: dict[str, str]) -> None:
    assert attacks.send(strict, *form_in(charset, **fields), seconds=10) == 400
    assert "Traceback" not in strict.log


def form_in(charset: str, **fields: str) -> tuple[bytes, str]:
    """A good form with further fields, and its Content-Type with a charset."""
    kind = f"multipart/form-data; boundary={attacks.BOUNDARY}"
    data = {"model": NAME, **fields}
    files = {"file": SPEECH.read_bytes()}
    request = httpx.Request("POST", "/", data=data, files=files, headers={"Content-Type": kind})
    return request.read(), f"{kind}; charset={charset}"


@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", '"utf8"'])
def test_a_charset_that_says_utf_8(strict: Running, charset: str) -> None:
    assert attacks.send(strict, *form_in(charset)) == 200


def test_what_is_refused_leaves_nothing_behind() -> None:
    """An exception that is raised again keeps all frames that it has ever passed."""
    limit, headers = UploadLimit(1), {b"content-length": b"99999999"}
    for _ in range(100):
        with pytest.raises(RequestError) as refused:
            limit.check(headers)
    assert len(traceback.extract_tb(refused.value.__traceback__)) < 5


# Connections


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """Answers; of ``/body`` it reads the body first, which it lets take its time."""
    if scope["type"] != "http":
        return
    while scope["path"] == "/body" and (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


def greeted(connection: socket.socket) -> bool:
    """Whether ``hello`` answers; its answer may come in parts."""
    connection.settimeout(60)
    answer = b""
    while b"hello" not in answer and (part := connection.recv(1000)):
        answer += part
    return b"hello" in answer


def closed(connection: socket.socket, seconds: float) -> bool:
    """Whether the other side closes it; what it says first is read."""
    connection.settimeout(seconds)
    try:
        while connection.recv(1000):
            pass
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize("said", [b"", b"G", b"GET / HTTP/1.1\r\nHost: x\r\n"])
def test_a_connection_without_a_request_is_closed(
    monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    with (
        patched(monkeypatch, hello, HEAD_SECONDS=2) as server,
        idle_connections(server, 1, said) as [connection],
    ):
        assert not closed(connection, 0.2)
        assert closed(connection, 30)


def test_requests_one_after_the_other_have_their_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    head = b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n"
    with (
        patched(monkeypatch, hello, HEAD_SECONDS=0.5, REST_SECONDS=0.5) as server,
        idle_connections(server, 1, head) as [connection],
    ):
        for _ in range(2):
            for byte in b"abc":  # a body may take longer than a head
                time.sleep(0.3)
                connection.sendall(bytes([byte]))
            assert greeted(connection)
            time.sleep(0.6)
            connection.sendall(head)
        time.sleep(0.8)
        connection.sendall(b"abc")
        assert greeted(connection)
        connection.sendall(b"GET / HT")
        assert closed(connection, 30), "the second request may take for ever"


def test_the_rest_of_an_answered_request_is_read_and_not_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"
    with patched(monkeypatch, hello, HEAD_SECONDS=60, REST_SECONDS=2) as server:
        with idle_connections(server, 1, head) as [connection]:
            assert greeted(connection)
            connection.sendall(b"rest" + head + b"rest")
            assert greeted(connection)
            time.sleep(2.5)
            connection.sendall(head)  # the time of the rest does not count here
            assert greeted(connection)
        with idle_connections(server, 1, head) as [connection]:
            for _ in range(3):
                time.sleep(1)
                with suppress(OSError):
                    connection.sendall(b"r")
            assert closed(connection, 30)


@pytest.mark.parametrize("path", ["/", "/body"])
@pytest.mark.parametrize("method", ["POST", "HEAD"])
def test_a_body_that_breaks_off_into_no_http(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, path: str, method: str
) -> None:
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    said = head.encode() + b"no chunk\r\n\r\n"
    with (
        patched(monkeypatch, hello, HEAD_SECONDS=60, REST_SECONDS=60) as server,
        idle_connections(server, 1, said) as [connection],
    ):
        assert closed(connection, 30)
    assert not [record for record in caplog.records if record.levelname == "ERROR"], caplog.text


def test_a_body_that_drips_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    from stt_server import admission
    from stt_server.guard import RequestError

    monkeypatch.setattr(admission, "_GRACE", 2)

    async def drip() -> Any:
        await asyncio.sleep(0.5)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def read() -> int:
        door = admission.Admission(32, 500)
        count = 0
        with suppress(RequestError), door.admit(drip, 0) as receive:
            while count < 100:
                await receive()
                count += 1
        assert (door.requests, door.kept) == (0, 0)
        return count

    assert 1 <= asyncio.run(read()) <= 4


def test_no_file_is_left_and_no_traceback_for_it(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        limits = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (60, limits[1]))
        with idle_connections(server, 80):
            server.wait_for_log("out of system resource", 60)
        server.wait_for_log("GET /health", 60)
        assert server.post().status_code == 200
        assert "Traceback" not in server.log
