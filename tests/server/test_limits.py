"""The limits before another server, which decodes a whole recording at once as Speaches does."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import av.error
import httpx
import pytest
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from stt_server import admission
from stt_server.audio import SAMPLING_RATE
from stt_server.limits import AT_ONCE, Limits, until_left
from tests.server import attacks
from tests.server.server import Running, served, wait

#: In a recording.
SEGMENTS = 1000


class Other:
    """A server that has no limits; it transcribes a recording once it may."""

    def __init__(self) -> None:
        self.limits = Limits(audio_minutes=10, upload_mb=30, waiting=4)
        self.let = threading.Event()
        self.let.set()
        self.decoded = 0
        self.segments = 0
        self.ended = threading.Event()

    def work_on(self, file: Any) -> float:
        """Seconds, as its route takes them in a worker thread."""
        samples = self.limits.decode(file)
        self.decoded += 1

        def transcribe() -> tuple[Iterator[int], None]:
            return iter(range(SEGMENTS)), None

        for _ in until_left(transcribe)()[0]:
            self.segments += 1
            if self.let.wait(0.05):
                break
        self.ended.set()
        return len(samples) / SAMPLING_RATE

    async def transcribe(self, request: Request) -> Response:
        """The route."""
        async with request.form() as form:
            try:
                seconds = await run_in_threadpool(self.work_on, form["file"].file)  # type: ignore[union-attr]  # a file
            except av.error.InvalidDataError:
                return PlainTextResponse("a server's own words", 415)
            return JSONResponse({"seconds": seconds})

    def app(self) -> Any:
        """With the limits before it."""
        routes = [
            Route("/v1/audio/transcriptions", self.transcribe, methods=["POST"]),
            Route("/health", lambda _: PlainTextResponse("ok")),
        ]
        return self.limits.before(Starlette(routes=routes))


@pytest.fixture
def other() -> Other:
    return Other()


@pytest.fixture
def server(other: Other) -> Iterator[Running]:
    """It, on a port."""
    with served(other.app()) as running:
        try:
            yield running
        finally:
            other.let.set()


def message(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["message"]


def test_what_is_within_them_is_answered_as_ever(server: Running) -> None:
    for minutes in (0.5, 2.5, 6):
        assert server.post(attacks.talk(minutes)).json() == {"seconds": minutes * 60}
    assert server.get("/health").text == "ok"
    assert server.get("/nothing").status_code == 404


def test_what_is_refused_is_said_in_our_words(server: Running, other: Other) -> None:
    few = "The audio has 4 samples a second, too few for speech; at least 4000 are needed."
    assert message(server.post(attacks.hours_in_a_packet())) == (400, few)
    long = "The audio is longer than 10 minutes, the limit of this service."
    assert message(server.post(attacks.silence(11))) == (400, long)
    none = "The file is not audio that can be decoded."
    assert message(server.post(b"words, and no sound")) == (400, none)
    assert other.decoded == 0


def test_an_upload_that_is_too_large(server: Running) -> None:
    large = "The upload is larger than 30 MiB."
    assert message(server.post(bytes(31 << 20))) == (413, large)
    assert attacks.send(server, attacks.file_of(32 << 20)) == 413  # which does not say its size


def test_what_is_no_form(server: Running) -> None:
    kind = "application/x-www-form-urlencoded"
    assert attacks.send(server, attacks.urlencoded(1 << 20), kind) == 400


def test_a_body_that_drips(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "_GRACE", 0.3)

    def drip() -> Iterator[bytes]:
        yield attacks.PART % b'"file"; filename="x"'
        for _ in range(20):
            time.sleep(0.1)
            yield b"x"

    assert attacks.send(server, drip()) in (408, 0)


def test_the_line_has_an_end(server: Running, other: Other) -> None:
    other.let.clear()
    with ThreadPoolExecutor(5) as pool:
        five = [pool.submit(server.post) for _ in range(5)]
        wait(lambda: other.decoded == 5)
        answer = server.post()
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "5")
        assert server.get("/health").status_code == 200
        other.let.set()
        assert [each.result().status_code for each in five] == [200] * 5
    assert server.post().status_code == 200


def test_long_recordings_take_turns_and_a_dictation_does_not_wait(
    server: Running, other: Other
) -> None:
    other.let.clear()
    with ThreadPoolExecutor(5) as pool:
        long = [pool.submit(server.post, attacks.talk(4)) for _ in range(AT_ONCE + 1)]
        wait(lambda: other.decoded == AT_ONCE)
        dictation = pool.submit(server.post)
        wait(lambda: other.decoded == AT_ONCE + 1)
        other.let.set()
        assert dictation.result().status_code == 200
        assert [each.result().status_code for each in long] == [200] * len(long)


def test_who_leaves_is_not_heard_and_gives_the_turn_back(server: Running, other: Other) -> None:
    other.let.clear()
    with attacks.leaving(server, attacks.talk(4)):
        wait(lambda: other.segments > 0)
    assert other.ended.wait(120)
    assert 0 < other.segments < SEGMENTS
    other.let.set()
    assert server.post(attacks.talk(4)).status_code == 200
    other.let.clear()
    with ThreadPoolExecutor(2) as pool:
        long = [pool.submit(server.post, attacks.talk(4)) for _ in range(AT_ONCE)]
        wait(lambda: other.decoded == 2 + AT_ONCE)
        with attacks.leaving(server, attacks.talk(4)):
            time.sleep(0.5)  # it waits for its turn
        other.let.set()
        assert [each.result().status_code for each in long] == [200] * AT_ONCE
    assert server.post(attacks.talk(4)).status_code == 200
    assert other.decoded == 3 + AT_ONCE
