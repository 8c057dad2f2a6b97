"""A steady load of transcriptions, and what it loses."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException
from itertools import pairwise
from typing import Any

import pytest

from tests.e2e.project import RECORDINGS, Project, post_recording


@dataclass
class Load:
    """Requests of several clients, each one after the other; with its time and whether it was good.

    ``texts`` are what has to come back, of each client in turn; empty: anything.
    """

    url: str
    key: str
    texts: Sequence[str] = ("hello world",)
    clients: int = 2
    trust: ssl.SSLContext | None = None
    answers: list[tuple[float, bool]] = field(default_factory=list)
    #: What came back instead.
    wrong: list[str] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Load:
        texts = (self.texts[number % len(self.texts)] for number in range(self.clients))
        self._threads = [threading.Thread(target=self._client, args=(text,)) for text in texts]
        for client in self._threads:
            client.start()
        time.sleep(1)
        return self

    def __exit__(self, *error: object) -> None:
        time.sleep(1)
        self._over.set()
        for client in self._threads:
            client.join()

    def _client(self, text: str) -> None:
        recording = RECORDINGS / f"{(text or 'hello world').replace(' ', '_')}.wav"
        while not self._over.is_set():
            try:
                answer = post_recording(self.url, recording, "whisper-1", self.key, self.trust)
                said = answer.json["text"] if answer.status == 200 else repr(answer.body[:200])
                good = answer.status == 200 and text in ("", said)
            # HTTPException: an answer that was cut off.
            except (OSError, HTTPException) as problem:
                said, good = repr(problem), False
                time.sleep(0.02)
            self.answers.append((time.monotonic(), good))
            if not good:
                self.wrong.append(f"{text}: {said}")

    @property
    def good(self) -> int:
        """How many requests were answered as they should be."""
        return len(self.answers) - self.failed

    @property
    def failed(self) -> int:
        """How many requests were refused, or answered wrongly."""
        return sum(not good for _, good in self.answers)

    @property
    def outage(self) -> float:
        """The longest time without a good answer, in seconds."""
        good = sorted(at for at, ok in self.answers if ok)
        return max(later - earlier for earlier, later in pairwise(good))


def tell(capsys: pytest.CaptureFixture[str], what: str, load: Load) -> None:
    """Show whoever runs the tests what a load has met."""
    with capsys.disabled():
        answers = f"{len(load.answers)} requests, {load.failed} refused"
        print(f"\n{what}: {answers}, no answer for {load.outage:.2f} s at most")


def under_load(project: Project, *texts: str, clients: int = 2) -> Load:
    """A load on the STT service of a stack."""
    outputs = project.outputs()
    return Load(outputs["stt_url"], outputs["stt_api_key"], texts or ("hello world",), clients)


def outage_at_rest(project: Project, capsys: pytest.CaptureFixture[str], what: str) -> float:
    """The longest time without a good answer while nothing changes, in seconds."""
    with under_load(project) as load:
        time.sleep(2)
    tell(capsys, what, load)
    assert load.failed == 0
    return load.outage


@contextmanager
def asked_meanwhile(ask: Callable[[], Any]) -> Iterator[list[Any]]:
    """What somebody is told who asks five times a second."""
    seen: list[Any] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.2):
            seen.append(ask())

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield seen
    finally:
        done.set()
        watching.join()
