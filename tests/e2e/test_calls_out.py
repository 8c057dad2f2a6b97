"""No program calls anybody: seen on the bridge while each starts anew, works and rests.

Open WebUI and Caddy have theirs in test_webui.py, Speaches and Ollama in test_speaches.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.calls_out import Heard, heard
from tests.e2e.project import Project
from tests.tiny_parakeet import make_model as make_parakeet
from tests.tiny_vosk import make_model as make_vosk

pytestmark = pytest.mark.seldom

#: Seconds to listen once the work is done. ONNX Runtime asked every ten seconds, when it did.
LISTENED = 45


@pytest.fixture(scope="module")
def project(stack: Project, up: str) -> Iterator[Project]:
    """The shared stack: each test sets its engine, and the last module's is put back."""
    before = dict(stack.settings)
    yield stack
    stack.settings = before
    stack.write()
    stack.up()


def listen(project: Project, seconds: float) -> Heard:
    """What leaves the domain while its service starts and transcribes, and afterwards."""
    network = f"{project.subnet}.0/24"
    with heard(f"net-{project.domain}", network, seconds) as recorder:
        project.inside("systemctl", "restart", project.settings["engine"])
        assert project.transcribe("hello_world").status == 200
    return recorder


def test_what_calls_out_is_heard(project: Project) -> None:
    """A name that is asked for, and an address, though neither gets anywhere."""
    name = "import socket; socket.getaddrinfo('telemetry.example.org', 443)"
    address = "import socket; socket.create_connection(('192.0.2.1', 443), 1)"
    with heard(f"net-{project.domain}", f"{project.subnet}.0/24", 0.5) as recorder:
        for program in (name, address):
            project.inside("sh", "-c", f'python3 -c "{program}" 2>/dev/null || true')
    assert "telemetry.example.org" in recorder.names
    assert recorder.addresses == {"192.0.2.1:443"}


@pytest.mark.parametrize("engine", ["faster-whisper", "parakeet", "vosk"])
def test_an_engine_calls_nobody(project: Project, engine: str) -> None:
    if engine != "faster-whisper":
        make = {"parakeet": make_parakeet, "vosk": make_vosk}[engine]
        make(project.root / "models" / f"tiny-{engine}")
        model = f"./models/tiny-{engine}"
        project.set(engine=engine, model=model, quantization=None, check={"words": ""})
        project.up()
    recorder = listen(project, LISTENED)
    assert recorder.packets > 0
    assert (recorder.names, recorder.addresses) == (set(), set())
