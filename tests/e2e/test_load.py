"""Under a steady load of transcriptions: what a good change loses, and a bad one."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from tests.e2e.project import RECORDINGS, Project, broken_model, post_recording, request


@dataclass
class Load:
    """Requests of two clients, one after the other; each with its time and whether it was good."""

    url: str
    key: str
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
                good = answer.status == 200 and answer.json["text"] == "hello world"
            except OSError:
                good = False
                time.sleep(0.02)
            self.answers.append((time.monotonic(), good))

    @property
    def failed(self) -> int:
        return sum(not good for _, good in self.answers)

    @property
    def outage(self) -> float:
        """The longest time without a good answer, in seconds."""
        good = sorted(at for at, ok in self.answers if ok)
        return max(later - earlier for earlier, later in pairwise(good))


def under_load(project: Project) -> Load:
    outputs = project.outputs()
    return Load(outputs["stt_url"], outputs["stt_api_key"])


def tell(capsys: pytest.CaptureFixture[str], what: str, load: Load) -> None:
    with capsys.disabled():
        answers = f"{len(load.answers)} requests, {load.failed} refused"
        print(f"\n{what}: {answers}, no answer for {load.outage:.2f} s at most")


def test_what_each_change_loses(
    project: Project, up: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with under_load(project) as load:
        time.sleep(2)
    tell(capsys, "no change", load)
    assert load.failed == 0
    usual = load.outage

    project.set(quantization="float32")
    with under_load(project) as load:
        project.up()
    tell(capsys, "another quantization", load)
    good = load.outage
    assert load.failed == 0, "systemd holds the port: clients wait for the restart"
    assert good < usual + 10
    project.set(quantization="int8")
    project.up()

    # A model that does not load is found before the old one stops.
    project.set(model=broken_model(project))
    with under_load(project) as load:
        project.fails()
    tell(capsys, "a model that does not load", load)
    assert load.failed == 0

    # What is wrong only once it starts: the old one comes back.
    project.set(model="./models/tiny-digits")
    file = project.root / "engines" / "own_server.py"
    text = file.read_text()
    language = '"STT_LANGUAGE": settings.language,'
    assert language in text
    file.write_text(text.replace(language, f'{language}\n        "STT_LANGAUGE": "",'))
    with under_load(project) as load:
        assert "the one before was put back" in project.fails()
    file.write_text(text)
    tell(capsys, "a service that fails at its start", load)
    assert load.failed == 0
    assert load.outage < good + 10

    # Another port, which is taken at the last moment: the old one has to listen again.
    project.set(port=8124)
    begun = "/var/lib/incus-stt/transactions/*/list.json"
    squatter = f"while ! ls {begun} >/dev/null 2>&1; do :; done; exec python3 -m http.server 8124"
    project.inside("systemd-run", "-q", "-u", "squatter", "sh", "-c", squatter)
    with under_load(project) as load:
        said = project.fails()
    project.inside("systemctl", "stop", "squatter")
    assert "the one before was put back" in said
    assert "ddress already in use" in said  # the journal's words
    tell(capsys, "a port that is taken at the last moment", load)
    assert load.answers[-1][1]
    assert load.outage < good + 10
    project.set(port=None)
    assert request(project.outputs()["stt_health_url"]).status == 200
    project.up()
    assert project.unchanged()
