"""A steady load of transcriptions, and what it loses."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from itertools import pairwise

from tests.e2e.project import RECORDINGS, Project, post_recording


@dataclass
class Load:
    """Requests of two clients, one after the other; each with its time and whether it was good.

    ``text`` is what has to come back; empty: anything.
    """

    url: str
    key: str
    text: str = "hello world"
    answers: list[tuple[float, bool]] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Load:
        self._clients = [threading.Thread(target=self._client) for _ in range(2)]
        for client in self._clients:
            client.start()
        time.sleep(1)
        return self

    def __exit__(self, *error: object) -> None:
        time.sleep(1)
        self._over.set()
        for client in self._clients:
            client.join()

    def _client(self) -> None:
        recording = RECORDINGS / "hello_world.wav"
        while not self._over.is_set():
            try:
                answer = post_recording(self.url, recording, "whisper-1", self.key)
                good = answer.status == 200 and self.text in ("", answer.json["text"])
            except OSError:
                good = False
                time.sleep(0.02)
            self.answers.append((time.monotonic(), good))

    @property
    def failed(self) -> int:
        """How many requests were refused, or answered wrongly."""
        return sum(not good for _, good in self.answers)

    @property
    def outage(self) -> float:
        """The longest time without a good answer, in seconds."""
        good = sorted(at for at, ok in self.answers if ok)
        return max(later - earlier for earlier, later in pairwise(good))


def under_load(project: Project, text: str = "hello world") -> Load:
    """A load on the STT service of a stack."""
    outputs = project.outputs()
    return Load(outputs["stt_url"], outputs["stt_api_key"], text)
