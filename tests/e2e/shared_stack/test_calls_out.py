"""No program calls anybody: seen on the bridge while each starts anew, works and rests.

Open WebUI and Caddy have theirs in test_webui.py, Speaches and Ollama in test_speaches.py.
"""

from __future__ import annotations

import pytest

from tests.e2e.calls_out import heard
from tests.e2e.project import Project
from tests.e2e.tiny_models import tiny_model

pytestmark = pytest.mark.seldom

#: Seconds to listen once the work is done. ONNX Runtime asked every ten seconds, when it did.
LISTENED = 45


@pytest.fixture(scope="module")
def project(engine_stack: Project) -> Project:
    """The shared stack: each test sets its engine."""
    return engine_stack


def test_what_calls_out_is_heard(project: Project) -> None:
    """Names that are asked for, and an address, though none of them gets anywhere."""
    labels = "b''.join(bytes([len(each)]) + each for each in (b'tcp', b'example', b'org'))"
    over_tcp = (
        f"import socket; query = bytes([0, 1, 1, 0, 0, 1, *bytes(6), *{labels}, 0, 0, 1, 0, 1]); "
        f"dns = socket.create_connection(('{project.subnet}.254', 53), 2); "
        "dns.sendall(len(query).to_bytes(2, 'big') + query)"
    )
    name = "import socket; socket.getaddrinfo('telemetry.example.org', 443)"
    address = "import socket; socket.create_connection(('192.0.2.1', 443), 1)"
    with heard(project, 0.5) as recorder:
        for program in (name, over_tcp, address):
            project.inside("sh", "-c", f'python3 -c "{program}" 2>/dev/null || true')
    assert {"telemetry.example.org", "tcp.example.org"} <= recorder.names
    assert recorder.addresses == {"192.0.2.1:443"}


@pytest.mark.parametrize("engine", ["faster-whisper", "parakeet", "vosk"])
def test_an_engine_calls_nobody(project: Project, engine: str) -> None:
    if engine != "faster-whisper":
        tiny_model(project, engine)
        model = f"./models/tiny-{engine}"
        project.set(engine=engine, model=model, quantization=None, check={"words": ""})
        project.up()
    with heard(project, LISTENED) as recorder:
        project.inside("systemctl", "restart", engine)
        assert project.transcribe("hello_world").status == 200
    recorder.assert_nobody_was_called()
