"""What a machine says of itself for `make doctor`."""

from __future__ import annotations

import json
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from agent.actions import Run
from agent.certificate import not_after
from agent.examine import examine
from agent.http import HealthRequest
from agent.kinds.program import Program
from agent.kinds.secret_files import SecretFile, SecretFiles
from agent.kinds.transcription import Transcription
from agent.record import begin

STEP, KEY, HEADER = "stt_server/service", "/etc/incus-stt/key", "/etc/incus-stt/header"


def _openssl(directory: Path, days: int) -> Path:
    """A certificate with its key in one file."""
    file = directory / "both.pem"
    words = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=x"
    key = ["-keyout", str(directory / "key.pem"), "-out", str(file)]
    subprocess.run([*words.split(), "-days", str(days), *key], check=True, capture_output=True)
    file.write_text(file.read_text() + (directory / "key.pem").read_text())
    return file


@pytest.mark.parametrize("days", [1, 9000, 36500])  # beyond 2049 a time is written otherwise
def test_when_a_certificate_ends(days: int, tmp_path: Path) -> None:
    end = not_after(_openssl(tmp_path, days).read_text())
    assert abs(end - time.time() - days * 86400) < 60


@pytest.mark.parametrize("text", ["", "x", "-----BEGIN CERTIFICATE-----\nAA==\n"])
def test_what_is_no_certificate(text: str) -> None:
    with pytest.raises(ValueError, match="no certificate"):
        not_after(text)
    empty = f"{ssl.PEM_HEADER}\nAA==\n{ssl.PEM_FOOTER}\n"
    with pytest.raises(ValueError, match="without its times"):
        not_after(empty)


@pytest.fixture
def stt() -> Any:
    """An endpoint that takes one key."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            right = self.headers.get("Authorization") == "Bearer right"
            self.send_response(200 if right else 401)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *words: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def _built(agent: Any, url: str) -> None:
    secrets = [SecretFile(KEY, "right"), SecretFile(HEADER, "Authorization: Bearer right\n")]
    agent.apply("stt_server/secrets", SecretFiles(secrets, STEP), secret=True)
    agent.apply(STEP, agent.service("a"))
    said = json.dumps({"text": "one two"})
    agent.systemd.program("curl", f"#!/bin/sh\nprintf '%s\\n200' '{said}'\n", ready=True)
    verify = Transcription(
        url, "m", "/r.wav", 3.0, HEADER, unit="engine", engine="Engine", device="cpu", words="one"
        " two"
    )  # fmt: skip
    agent.apply("stt_server/verify", verify)
    agent.systemd.program("getent", '#!/bin/sh\necho "10.0.0.1 STREAM $2"\n', ready=True)


def test_keys_of_clients_that_were_changed_are_named(agent: Any, stt: ThreadingHTTPServer) -> None:
    _built(agent, f"http://127.0.0.1:{stt.server_port}")
    keys = SecretFiles([SecretFile("/etc/clients.json", "{}")])
    agent.apply("stt_server/clients", keys, secret=True)
    agent.path("/etc/clients.json").write_text("other")
    (found,) = examine(agent.machine, [])["keys"].values()
    assert found["changed"] == ["/etc/clients.json: (another secret, not shown)"]


def test_a_machine_on_which_all_is_well(agent: Any, stt: ThreadingHTTPServer) -> None:
    _built(agent, f"http://127.0.0.1:{stt.server_port}")
    place = "/opt/incus-stt/uv-1"
    make = Run(["mkdir", "-p", str(agent.path(place))])
    agent.apply("base_system/uv", Program(place, "uv 1", [make]))
    before = agent.tree()
    asked = time.time()
    said = examine(agent.machine, ["gpu-server.incus"])
    assert said["services"][STEP]["state"] == "active" and said["healthy"] == {STEP: True}
    assert said["unfinished"] == [] and said["outside"] == {}
    uv = {"directory": place, "description": "uv 1"}
    assert said["programs"] == {"base_system/uv": uv}
    assert said["names"] == {"gpu-server.incus": ["10.0.0.1"]}
    verified = said["verified"]["stt_server/verify"]
    assert (verified["text"], verified["word_error_rate"]) == ("one two", 0.0)
    assert verified["at"] >= said["applied"][STEP]
    assert said["keys"] == {
        "stt_server/verify": {
            **{"asked": True, "engine": "Engine"},
            **{"with": 200, "without": 401, "changed": []},
        }
    }
    assert said["disks"][0]["free"] > 0 and 0 <= said["disks"][0]["inodes"] <= 1
    assert asked - 1 <= said["time"] <= time.time() + 1 and said["certificates"] == {}
    assert agent.tree() == before, "it changes nothing"


def test_a_server_elsewhere_is_asked_with_the_key_only(
    agent: Any, stt: ThreadingHTTPServer
) -> None:
    url = f"http://127.0.0.1:{stt.server_port}"
    _built(agent, url)
    server = Transcription(
        url, "m", "/r.wav", 3.0, HEADER, unit="gateway", engine="Engine", device="", elsewhere=True
    )
    agent.apply("stt_gateway/server", server)
    said = examine(agent.machine, [])["keys"]
    found = said["stt_gateway/server"]
    assert (found["with"], found["without"], found["elsewhere"]) == (200, 0, url)
    assert "elsewhere" not in said["stt_server/verify"]


def test_what_is_wrong_is_told_without_secrets(agent: Any, stt: ThreadingHTTPServer) -> None:
    _built(agent, f"http://127.0.0.1:{stt.server_port}")
    agent.path(HEADER).write_text("Authorization: Bearer wrong-key\n")
    (agent.systemd.state / "active" / "engine.service").write_text("SICK")
    begin(agent.machine, "stt_server/model")
    said = examine(agent.machine, [])
    key = said["keys"]["stt_server/verify"]
    assert (key["with"], key["without"]) == (401, 401)
    assert key["changed"] == [f"{HEADER}: (another secret, not shown)"]
    assert said["healthy"] == {STEP: False} and said["unfinished"] == ["stt_server/model"]
    assert "wrong-key" not in json.dumps(said)


def test_what_would_load_a_model_is_not_asked(agent: Any) -> None:
    sick = HealthRequest("http://127.0.0.1:9/load", method="POST")
    health = [HealthRequest(f"{agent.systemd.url}/engine")]
    agent.apply(STEP, agent.service("a", health=health))
    kept = agent.path("/var/lib/incus-stt/steps/stt_server%2Fservice.json")
    record = json.loads(kept.read_text())
    record["spec"]["health"].append({"url": sick.url, "method": "POST"})
    kept.write_text(json.dumps(record))
    assert examine(agent.machine, [])["healthy"] == {STEP: True}


@pytest.mark.parametrize(
    ("file", "source", "name"),
    [
        ("sources.list", "# deb http://old.example/ x\ndeb [a=b] http://{} bookworm", "127.0.0.1"),
        ("sources.list.d/a.sources", "Types: deb\nURIs: https://{}/debian", "127.0.0.1"),
    ],
)
def test_the_way_out(
    agent: Any, stt: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch,
    file: str, source: str, name: str,
) -> None:  # fmt: skip
    for variable in ("http_proxy", "https_proxy"):
        monkeypatch.delenv(variable, raising=False)
    place = agent.path(f"/etc/apt/{file}")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(source.format(f"{name}:{stt.server_port}"))
    agent.systemd.program("getent", f"#!/bin/sh\necho {name}\n", ready=True)
    found = examine(agent.machine, [])["outside"]
    assert found == {"name": name, "addresses": [name], "reached": True}
    agent.systemd.program("getent", "#!/bin/sh\nexit 2\n", ready=True)
    found = examine(agent.machine, [])["outside"]
    assert (found["addresses"], found["reached"]) == ([], False)
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    assert examine(agent.machine, [])["outside"] == {}


def test_the_certificate_that_a_service_shows(agent: Any, tmp_path: Path) -> None:
    file = _openssl(tmp_path, 3)
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    health = [HealthRequest(f"https://127.0.0.1:{server.server_port}/", statuses=[501, 200, 404])]
    try:
        agent.apply("webui_proxy/service", agent.service("a", health=health))
        found = examine(agent.machine, [])["certificates"]
        assert abs(found["webui_proxy/service"] - time.time() - 3 * 86400) < 60
    finally:
        server.shutdown()
        server.server_close()
    assert examine(agent.machine, [])["certificates"] == {}
