"""A server in this process, whose engine transcribes only what a test lets through."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from stt_server.audio import StoppedError
from stt_server.service import Service, create_app
from stt_server.settings import read_settings
from tests.server.server import Running, served, settings


@dataclass
class Gate:
    """A server whose engine transcribes a slice for every ``let``."""

    server: Running
    service: Service
    let: threading.Semaphore
    begun: threading.Semaphore

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return self.service.turn.statistics().tasks_waiting

    def open(self) -> None:
        self.let.release(1000)

    def post(self, *audio: bytes) -> int:
        return self.server.post(*audio).status_code


@contextmanager
def gated(monkeypatch: pytest.MonkeyPatch, **changes: str) -> Iterator[Gate]:
    service = Service(read_settings(settings(**changes)))
    let, begun = threading.Semaphore(0), threading.Semaphore(0)
    heard = service.recognizer.transcribe

    def transcribe(samples: Any, options: Any) -> Any:
        begun.release()
        while not let.acquire(timeout=0.02):
            if options.stopped():
                raise StoppedError
        return heard(samples, options)

    monkeypatch.setattr(service.recognizer, "transcribe", transcribe)
    with served(create_app(service)) as server:
        gate = Gate(server, service, let, begun)
        try:
            yield gate
        finally:
            gate.open()
