"""Keys of single clients: in this project's server, and in the wrapper around Speaches."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from stt_server.clients import ClientKeys
from stt_server.limits import Limits
from tests.server import attacks
from tests.server.server import KEY, ROOT, Running, running

APP = ROOT / "engines" / "speaches" / "machine" / "speaches_app.py"
LIMITS = {"STT_AUDIO_MINUTES": "10", "STT_UPLOAD_MB": "1", "STT_WAITING": "4"}
PHONE, TV = "key-of-the-phone-0123456789", "key-of-the-tv-0123456789"
#: As much of Speaches as its wrapper takes hold of; its check of the key is Speaches' own.
SPEACHES = {
    "main.py": """
import os
from starlette.exceptions import HTTPException
from starlette.routing import Router
class App:
    docs_url = redoc_url = openapi_url = swagger_ui_oauth2_redirect_url = "/docs"
    router, routes = Router(), ()
    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            return
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close"})
            return
        body, more = b"", scope["path"] == "/v1/chat/completions"
        while more:  # all of it is in memory before the key is looked at
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        given = dict(scope["headers"]).get(b"authorization", b"").decode()
        right = given == "Bearer " + os.environ["API_KEY"]
        status = 200 if right else 403
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})
def create_app():
    return App()
""",
    "dependencies.py": "decode_audio = None",
    "executors/shared/registry.py": "class ExecutorRegistry: pass",
    "executors/whisper.py": "class WhisperModelRegistry:\n    list_local_models = None",
    "model_aliases.py": "def load_model_id_aliases(): return {'small': 'a/small'}",
    "routers/misc.py": "def get_model_card_data_or_raise(model_id): ...",
    "routers/models.py": "",
    "routers/stt.py": "def get_model_card_data_or_raise(model_id): ...",
}


def write(file: Path, keys: dict[str, str]) -> None:
    """Put the keys into place as the agent does: beside, then renamed."""
    part = file.with_name("part")
    part.write_text(json.dumps(keys))
    part.replace(file)


def status(server: Running, key: str) -> int:
    url = f"{server.url}/v1/models"
    # What a client says of its address must not stand in the log: it would name another one.
    forged = {"Authorization": f"Bearer {key}", "X-Forwarded-For": "phone@10.0.0.9"}
    return httpx.get(url, headers=forged, timeout=60).status_code


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    file = tmp_path / "client-keys.json"
    write(file, {"phone": PHONE})
    return file


def test_keys_come_and_go_with_the_file(keys: Path) -> None:
    known = ClientKeys(str(keys))
    assert [known.name_of(key.encode()) for key in (PHONE, TV, "", PHONE[:-1])] == ["phone"] + [
        ""
    ] * 3
    write(keys, {"phone": PHONE, "tv": TV})
    assert known.name_of(TV.encode()) == "tv"
    write(keys, {"tv": TV})
    assert (known.name_of(PHONE.encode()), known.name_of(TV.encode())) == ("", "tv")
    keys.unlink()
    assert known.name_of(TV.encode()) == ""
    assert ClientKeys("").name_of(b"") == ""


@pytest.mark.parametrize("content", ["{", "[]", '{"phone": ""}', '{"phone": 5}', "\xff"])
def test_a_file_that_is_broken_lets_nobody_in_and_is_told_once(
    keys: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    known = ClientKeys(str(keys))
    assert known.name_of(PHONE.encode()) == "phone"
    part = keys.with_name("part")  # renamed: a file of the same size may have the same time
    part.write_bytes(content.encode("latin-1") + PHONE.encode())
    part.replace(keys)
    for _ in range(3):
        assert known.name_of(b"") == known.name_of(PHONE.encode()) == ""
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(f"no client's key is taken: {keys} cannot be read: ")
    assert PHONE not in said
    write(keys, {"phone": PHONE})
    assert known.name_of(PHONE.encode()) == "phone"


def test_the_server_takes_and_refuses_keys_without_a_restart(keys: Path, tmp_path: Path) -> None:
    with running(tmp_path, key=KEY, STT_CLIENT_KEYS_FILE=str(keys)) as server:
        assert [status(server, key) for key in (KEY, PHONE, TV)] == [200, 200, 401]
        write(keys, {"tv": TV})
        assert [status(server, key) for key in (KEY, PHONE, TV)] == [200, 401, 200]
        keys.unlink()
        assert [status(server, key) for key in (KEY, PHONE, TV)] == [200, 401, 401]
        log = server.log
    for who in ("phone@127.0.0.1:", "tv@127.0.0.1:"):
        (line,) = [line for line in log.splitlines() if who in line]
        assert line.endswith('"GET /v1/models HTTP/1.1" 200 OK')
    assert "INFO:     127.0.0.1:" in log  # who has the one key has no name
    assert not any(key in log for key in (KEY, PHONE, TV)) and "10.0.0.9" not in log


@pytest.fixture
def wrapped(tmp_path: Path, keys: Path) -> Iterator[Running]:
    """The wrapper around Speaches, on a socket that it gets as from systemd."""
    for name, text in SPEACHES.items():
        file = tmp_path / "speaches" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{ROOT}:{tmp_path}",
        "API_KEY": KEY,
        "INCUS_STT_LANGUAGE": "",
        "STT_CLIENT_KEYS_FILE": str(keys),
        **LIMITS,
    }
    log = tmp_path / "log"
    with socket.create_server(("127.0.0.1", 0)) as held, log.open("wb") as out:
        held_as_3 = f"import os, runpy; os.dup2({held.fileno()}, 3); runpy.run_path({str(APP)!r}, "
        line = [sys.executable, "-c", f"{held_as_3}run_name='__main__')"]
        process = subprocess.Popen(
            line, env=environment, stdout=out, stderr=out, pass_fds=[held.fileno()]
        )
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
    try:
        server = Running(url, process, log)
        end = time.monotonic() + 60
        while "startup complete" not in server.log:  # the socket is held: who asks earlier waits
            assert process.poll() is None and time.monotonic() < end, server.log
            time.sleep(0.05)
        yield server
    finally:
        process.kill()
        process.wait()


def test_speaches_takes_a_client_s_key_for_its_own(wrapped: Running, keys: Path) -> None:
    assert [status(wrapped, key) for key in (KEY, PHONE, TV, "x")] == [200, 200, 401, 401]
    write(keys, {"tv": TV})
    assert [status(wrapped, key) for key in (KEY, PHONE, TV)] == [200, 401, 200]
    wrapped.wait_for_log("tv@127.0.0.1:", 60)
    assert wrapped.log.count("phone@127.0.0.1:") == 1
    assert not any(text in wrapped.log for text in (KEY, PHONE, TV, "10.0.0.9"))
    # The limits, and the key before any of an upload is read.
    wrapped.key = KEY
    assert [wrapped.post(bytes(size)).status_code for size in (1, 2 << 20)] == [200, 413]
    wrapped.key = "x"
    refused = wrapped.post(bytes(2 << 20))
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")


def test_speaches_reads_no_body_without_the_key(wrapped: Running) -> None:
    """Whatever the route, and with the key no larger one than the limit."""
    url, post = f"{wrapped.url}/v1/chat/completions", partial(httpx.post, timeout=60)
    before = attacks.begin(wrapped)
    for path in ("/v1/chat/completions", "/v1/realtime", "/anything"):
        answer = post(f"{wrapped.url}{path}", content=bytes(50 << 20), headers=bearer("x"))
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert post(url, content=bytes(2 << 20), headers=bearer(KEY)).status_code == 413
    parts = (bytes(1 << 16) for _ in range(800))
    assert post(url, content=parts, headers=bearer(KEY)).status_code == 413
    assert attacks.memory(wrapped, "VmHWM") - before < 20
    assert post(url, content=b"{}", headers=bearer(KEY)).status_code == 200
    assert wrapped.get("/health").text == "done"  # the stand-in's own answer


def test_a_key_in_an_address_is_not_logged(wrapped: Running) -> None:
    """A browser's WebSocket has no headers of its own, so Speaches takes the key there."""
    url = f"ws{wrapped.url.removeprefix('http')}/v1/realtime?api_key={KEY}&model=whisper-1"
    with connect(url, proxy=None) as channel, pytest.raises(ConnectionClosed):
        channel.recv(timeout=60)
    httpx.get(f"{wrapped.url}/v1/models?api_key={KEY}", headers=bearer(KEY), timeout=60)
    wrapped.wait_for_log('"WebSocket /v1/realtime" [accepted]', 60)
    wrapped.wait_for_log('"GET /v1/models HTTP/1.1"', 60)
    assert KEY not in wrapped.log


def test_a_key_in_an_address_is_not_logged_by_the_server(tmp_path: Path) -> None:
    with running(tmp_path, key=KEY) as server:
        assert httpx.get(f"{server.url}/v1/models?api_key={KEY}", timeout=60).status_code == 401
        server.wait_for_log('"GET /v1/models HTTP/1.1" 401', 60)
        assert KEY not in server.log


def limited(app: Any, kinds: list[str], body: bytes, path: str) -> tuple[int, Limits]:
    """The status of a request with these Content-Types before an application with the limits."""
    limits = Limits(10, 1, 1)
    headers = [(b"content-type", kind.encode()) for kind in kinds]
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b""}
    scope["headers"] = [*headers, (b"content-length", str(len(body)).encode())]
    statuses: list[int] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        statuses.append(message.get("status", 0))

    async def serve() -> None:
        await limits.before(lambda *words: app(limits, *words))(scope, receive, send)

    asyncio.run(serve())
    return statuses[0], limits


async def parse(limits: Limits, scope: Any, receive: Any, send: Any) -> None:
    """As Speaches: a form, or a body; then how many requests take a place."""
    request = Request(scope, receive)
    await (request.form() if "audio" in scope["path"] else request.body())
    await Response(status_code=200 + limits.requests)(scope, receive, send)


def test_of_two_content_types_the_one_that_counts_is_looked_at() -> None:
    form = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n\\ud800\r\n--x--\r\n'
    kinds = [f"multipart/form-data; boundary=x{more}" for more in ("; charset=punycode", "")]
    path = "/v1/audio/transcriptions"
    assert limited(parse, kinds[1:], form, path)[0] == 201
    for sent in (kinds, kinds[:1]):
        assert limited(parse, sent, form, path)[0] == 400


def test_a_chat_takes_no_place_of_a_dictation() -> None:
    status, limits = limited(parse, ["application/json"], b"{}", "/v1/chat/completions")
    assert (status, limits.requests) == (200, 0)
