"""The gateway with nginx and the watcher as processes: what it lets in, passes on, and says."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from roles.stt_gateway.nginx import DISK_FULL, Gateway, keys_text, nginx_conf
from tests.gateway.gateway import (
    KEY,
    Running,
    StandIn,
    begun,
    gateway,
    needs_nginx,
    needs_root,
    post_beside,
    stand_ins,
    start_nginx,
)
from tests.server.server import wait

pytestmark = needs_nginx

PATH = "/v1/audio/transcriptions"


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[StandIn]]:
    with stand_ins(tmp_path, 2) as found:
        yield found


@pytest.fixture
def running(tmp_path: Path, servers: list[StandIn]) -> Iterator[Running]:
    with gateway(tmp_path, [s.port for s in servers], upload_mb=1, waiting=1) as found:
        yield found


# Keys


def head(running: Running, *lines: str, path: str = PATH) -> bytes:
    """What comes to a request of which only the head is sent."""
    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as client:
        text = "\r\n".join([f"POST {path} HTTP/1.1", "Host: x", *lines, "", ""])
        client.sendall(text.encode())
        return client.recv(4096)


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["Authorization: Bearer wrong"],
        ["Authorization: Bearer "],
        [f"Authorization: Basic {KEY}"],
        [f"Authorization: Bearer {KEY}x"],
        [f"Authorization: Bearer x{KEY}"],
        ["Authorization: Bearer default"],  # a word of nginx's own
    ],
)
def test_a_wrong_key_is_refused_before_the_body(running: Running, lines: list[str]) -> None:
    said = head(running, *lines, "Content-Length: 900000")
    assert said.startswith(b"HTTP/1.1 401 ") and b"WWW-Authenticate: Bearer" in said
    assert b'"code":"invalid_api_key"' in said
    too_large = head(running, *lines, "Content-Length: 900000000")
    assert too_large.startswith(b"HTTP/1.1 401 ")
    for path in ("/v1/models", "/api/ps", "/", "/health/x"):
        assert head(running, *lines, path=path).startswith(b"HTTP/1.1 401 "), path


@pytest.mark.parametrize(
    "key", ["~another+", "tab-and.new=line", "nul", "default", "~.*", "a+b/c=="]
)
@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_every_key_is_taken_as_it_is(
    tmp_path: Path, servers: list[StandIn], key: str, scheme: str
) -> None:
    with gateway(tmp_path, [servers[0].port], more_keys=[key]) as running:
        for given, status in ((key, 200), (KEY, 200), (f"{key}x", 401)):
            headers = {"Authorization": f"{scheme} {given}"}
            answer = httpx.get(f"{running.url}/v1/models", headers=headers, timeout=60)
            assert answer.status_code == status, given
        # A server sees who it is, to name the client in its log.
        sent = running.get("/v1/x").json()["headers"]
        assert sent["Authorization"] == f"Bearer {KEY}"


def test_a_new_key_is_taken_without_a_restart(running: Running) -> None:
    keys = running.home / "keys.conf"
    other = {"Authorization": "Bearer another-key"}

    def status() -> int:
        return httpx.get(f"{running.url}/v1/models", headers=other, timeout=60).status_code

    assert status() == 401
    part = keys.with_suffix(".part")
    part.write_text(keys_text([KEY, "another-key"]))
    part.replace(keys)
    wait(lambda: status() == 200, 60)
    keys.write_text(keys_text([KEY]))
    wait(lambda: status() == 401, 60)


def test_a_server_with_another_key_gets_nothing(running: Running, servers: list[StandIn]) -> None:
    """As one whose host was away while the key changed: no client is told that its key is wrong."""
    servers[0].kill()
    running.wait_for("server-1")
    servers[0].tell(key="the-former-one")
    servers[0].start()
    why = "does not accept the key of this stack"
    wait(lambda: running.status["servers"][0]["why"] == why, 60)
    assert {running.post().status_code for _ in range(20)} == {200}
    servers[1].kill()  # now there is no other one: a client may have a key that it accepts
    wait(lambda: running.post().status_code == 401, 30)
    servers[0].tell(key=KEY)
    running.wait_for("server-0")
    assert running.post().status_code == 200


def test_another_key_of_a_server_that_works_is_noticed(
    running: Running, servers: list[StandIn]
) -> None:
    servers[0].tell(key="changed-by-somebody")
    running.wait_for("server-1")
    servers[0].tell()
    running.wait_for("server-0", "server-1")


def test_another_key_of_the_stack_comes_with_the_servers_that_have_it(
    running: Running, servers: list[StandIn]
) -> None:
    """`up` changes a server, then the gateway, then the others: nobody gets a server's 401."""
    other = {"Authorization": "Bearer another-key"}
    servers[0].tell(key="another-key")
    servers[1].tell(key=KEY)
    running.wait_for("server-1")
    assert {running.post().status_code for _ in range(10)} == {200}

    def status() -> int:
        url = f"{running.url}/v1/audio/transcriptions"
        answer = httpx.post(url, content=b"x", headers=other, timeout=30)
        # The gateway's own 401, which its old processes may give for a moment, has a code.
        assert answer.status_code != 401 or answer.json()["error"].get("code"), "a server's"
        return answer.status_code

    assert status() == 401
    for name, text in (
        ("authorization", "Authorization: Bearer another-key\n"),
        ("keys.conf", keys_text(["another-key"])),
    ):
        part = running.home / f"{name}.part"
        part.write_text(text)
        part.replace(running.home / name)
    wait(lambda: [status() for _ in range(20)] == [200] * 20, 30)
    running.wait_for("server-0")
    servers[1].tell(key="another-key")
    running.wait_for("server-0", "server-1")


def test_without_keys_none_is_asked_for(tmp_path: Path, servers: list[StandIn]) -> None:
    with gateway(tmp_path, [servers[0].port], key="") as running:
        assert running.post().status_code == 200


# Limits


def test_a_large_upload_is_refused(running: Running) -> None:
    answer = running.post(b"x" * ((1 << 20) + 1))
    assert answer.status_code == 413
    assert answer.json()["error"]["message"] == "The upload is larger than 1 MiB."
    assert running.post(b"x" * (1 << 20)).status_code == 200

    def unannounced() -> Iterator[bytes]:
        for _ in range(20):
            yield b"x" * 100_000

    assert running.post(unannounced()).status_code == 413


def test_more_than_the_servers_take_are_asked_to_come_again(
    running: Running, servers: list[StandIn]
) -> None:
    for server in servers:
        server.tell(seconds=1000)
    found: list[httpx.Response] = []
    clients = [threading.Thread(target=lambda: found.append(running.post())) for _ in range(9)]
    for client in clients:
        client.start()
    wait(lambda: begun(servers) == 4 and len(found) == 5, 60)
    assert running.get("/v1/models").status_code == 200  # it takes nobody's place
    for server in servers:
        server.tell()
    for client in clients:
        client.join()
    # One at work and one that waits, for each of two servers.
    assert Counter(answer.status_code for answer in found) == {200: 4, 429: 5}
    [refused, *_] = [answer for answer in found if answer.status_code == 429]
    assert refused.headers["Retry-After"] == "5"
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    # The least busy one first.
    assert [server.work["most"] for server in servers] == [2, 2]
    wait(lambda: running.status["totals"]["refused"] == 5, 60)
    assert running.post().status_code == 200


def test_a_server_that_is_full_passes_it_on(running: Running, servers: list[StandIn]) -> None:
    servers[0].tell(status=429)
    assert {running.post().status_code for _ in range(6)} == {200}
    servers[1].tell(status=429)
    answer = running.post()
    assert answer.status_code == 429
    assert answer.json()["error"]["message"] == "a 429 of a server"
    counts = running.status["servers"][0]
    assert counts["full"] == counts["requests"] > 0 and counts["failed"] == 0


def test_a_server_that_answers_500_passes_it_on(running: Running, servers: list[StandIn]) -> None:
    """A card that is broken: it is the least busy one, and its health is good."""
    servers[0].tell(status=500)
    assert Counter(running.post().status_code for _ in range(20)) == {200: 20}
    counts, totals = running.status["servers"][0], running.status["totals"]
    assert counts["failed"] == counts["requests"] == totals["retried"] > 0
    assert counts["serving"] and totals["failed"] == 0


def test_where_every_server_answers_500_so_does_the_gateway(
    running: Running, servers: list[StandIn]
) -> None:
    """As at a recording at which the engine fails: the server's own answer, and no more tries."""
    for server in servers:
        server.tell(status=500)
    answer = running.post()
    assert answer.status_code == 500
    assert answer.json() == {"error": {"message": "a 500 of a server"}}
    wait(lambda: running.status["totals"]["failed"] == 1, 60)
    assert [each["requests"] for each in running.status["servers"]] == [2, 2]


def test_a_full_disk_is_no_queue(tmp_path: Path, servers: list[StandIn]) -> None:
    """It has less room than the largest upload may take."""
    more_than_there_is = (shutil.disk_usage(tmp_path).total >> 20) + 1
    with gateway(tmp_path, [servers[0].port], upload_mb=more_than_there_is) as running:
        wait(lambda: running.post().status_code == 503, 60)
        answer = running.post()
        assert answer.json()["error"]["message"] == DISK_FULL
        assert answer.headers["Retry-After"] == "5"
        assert running.get("/v1/models").status_code == 200, "it keeps no body"
        assert running.status["full"]


def test_heads_that_do_not_come_are_not_waited_for(running: Running) -> None:
    with socket.create_connection(("127.0.0.1", running.port), timeout=20) as client:
        client.sendall(b"POST /v1/audio/transcriptions HTTP/1.1\r\n")
        began = time.monotonic()
        assert client.recv(100) == b""
        assert 8 < time.monotonic() - began < 15


# Errors


def test_errors_are_in_openai_s_form(running: Running) -> None:
    api = running.get("/api/ps/x")
    assert api.status_code == 404
    assert f"server-1 (http://127.0.0.1:{running.servers[1]['port']})" in api.text
    for answer, status in (
        (api, 404),
        (running.get("/nothing"), 404),
        (running.get("/none.json"), 404),
        (running.get("/400"), 404),
        (running.get("/v1/" + "x" * 9000), 414),
        (httpx.request("POST", f"{running.url}/health", timeout=60), 405),
    ):
        assert answer.status_code == status
        assert answer.headers["Content-Type"] == "application/json"
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as client:
        client.sendall(b"nonsense\r\n\r\n")
        said = client.recv(4096)
    assert said.startswith(b"HTTP/1.1 400 ") and b'{"error":{"message":' in said


@pytest.mark.parametrize(
    ("first", "more", "status"),
    [
        ("GET /v1/models HTTP/1.1", f"X: {'x' * 40_000}", 400),
        ("POST /v1/models HTTP/1.1", "Transfer-Encoding: gzip", 501),
        ("GET /v1/models HTTP/3.7", "", 505),
        ("GET /health HTTP/1.1", "Range: bytes=90000-", 200),
        ("GET /health HTTP/1.1", 'If-Match: "x"', 412),
        ("POST /health HTTP/1.1", "Content-Length: 9000000", 413),
    ],
)
@pytest.mark.parametrize("key", [f"Authorization: Bearer {KEY}", "X-Other: header"])
def test_what_nginx_refuses_by_itself_is_in_openai_s_form(
    running: Running, first: str, more: str, status: int, key: str
) -> None:
    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as client:
        lines = [first, "Host: x", key, *filter(None, [more]), "", ""]
        client.sendall("\r\n".join(lines).encode())
        answer = http.client.HTTPResponse(client)
        answer.begin()
        assert answer.status == status
        assert answer.headers["Content-Type"] == "application/json"
        said = json.loads(answer.read())
        if status != 200:
            assert set(said["error"]) == {"message", "type", "param", "code"}


def test_all_servers_down_and_back(running: Running, servers: list[StandIn]) -> None:
    assert httpx.get(f"{running.url}/health", timeout=60).json()["status"] == "ok"
    assert running.watcher
    running.watcher.kill()  # it would notice
    running.watcher.wait()
    for server in servers:
        server.kill()
    broke_off = running.post()
    assert broke_off.status_code == 502 and broke_off.headers["Retry-After"] == "5"
    assert broke_off.json()["error"]["type"] == "server_error"
    running.start_watcher()
    running.wait_for()
    answer = running.post()
    assert answer.status_code == 503 and answer.headers["Retry-After"] == "5"
    assert answer.json()["error"]["message"] == "No STT server works now. Try again."
    health = httpx.get(f"{running.url}/health", timeout=60)
    assert health.status_code == 503 and health.json()["status"] == "unavailable"
    whys = {each["why"] for each in health.json()["servers"]}
    assert whys == {"cannot be reached: connection refused"}
    servers[0].start()
    wait(lambda: running.post().status_code == 200)
    running.wait_for("server-0")
    assert httpx.get(f"{running.url}/health", timeout=60).status_code == 200


# What passes


def test_events_pass_as_they_come(running: Running, servers: list[StandIn]) -> None:
    assert running.events(servers) == ["data: 0", "data: 1", "data: 2"]


def websocket(running: Running) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", running.port), timeout=30)
    client.sendall(
        b"GET /v1/realtime HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        + f"Authorization: Bearer {running.key}\r\n\r\n".encode()
    )
    said = client.recv(4096)
    assert said.startswith(b"HTTP/1.1 101 ")
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in said  # RFC 6455's example
    return client


def test_websockets_pass_and_outlive_a_change_of_the_list(
    running: Running, servers: list[StandIn]
) -> None:
    with websocket(running) as first, websocket(running) as second:
        servers[0].tell(health=503)  # nothing new goes there
        running.wait_for("server-1")
        time.sleep(1)  # whoever cuts them off does so by then
        for client in (first, second):
            client.sendall(b"a frame")
            assert client.recv(100) == b"a frame"


# What happens to servers


def test_a_server_that_is_not_ready_gets_nothing(running: Running, servers: list[StandIn]) -> None:
    servers[0].tell(health=503)
    running.wait_for("server-1")
    before = running.status["servers"][0]["requests"]
    for _ in range(5):
        assert running.post().status_code == 200
    assert running.status["servers"][0]["requests"] == before
    assert running.status["servers"][0]["why"] == "answers 503"
    servers[0].tell()
    running.wait_for("server-0", "server-1")


def test_engines_of_one_s_own_tell_it_at_a_path_of_their_own(
    tmp_path: Path, servers: list[StandIn]
) -> None:
    for server in servers:
        server.tell(path="/v1/models")
    with gateway(tmp_path, [each.port for each in servers], health="/v1/models") as running:
        running.wait_for("server-0", "server-1")
        assert running.post().status_code == 200
        servers[0].tell(path="/v1/models", health=503)
        running.wait_for("server-1")


def test_what_runs_goes_on_when_the_list_changes(running: Running, servers: list[StandIn]) -> None:
    for server in servers:
        server.tell(seconds=1000)
    answers = [post_beside(running, servers) for _ in range(2)]
    servers[0].tell(seconds=1000, health=503)
    running.wait_for("server-1")
    time.sleep(2)  # whoever cuts it off does so by then
    for server in servers:
        server.tell()
    assert [answer.result(60) for answer in answers] == [200, 200]
    wait(lambda: running.status["totals"]["requests"] == 2, 60)
    assert running.status["totals"]["retried"] == 0


def test_a_request_of_an_old_list_reaches_servers_that_came_back(
    running: Running, servers: list[StandIn]
) -> None:
    """Its own list says that the only server that is left does not work."""
    servers[1].kill()
    running.wait_for("server-0")
    servers[0].tell(seconds=1000)
    answer = post_beside(running, servers[:1])
    servers[1].start()
    running.wait_for("server-0", "server-1")
    servers[0].kill()
    assert answer.result(60) == 200


@needs_root
@pytest.mark.parametrize("what", ["silent", "stalled"])
def test_a_request_at_a_server_that_hangs_goes_to_another(
    running: Running, servers: list[StandIn], what: str
) -> None:
    for server in servers:
        server.tell(seconds=1000)
    answer = post_beside(running, servers)
    [at_work] = [number for number, server in enumerate(servers) if begun([server])]
    servers[1 - at_work].tell()
    if what == "silent":
        servers[at_work].signal(signal.SIGSTOP)
    else:  # it answers, and its engine does not move
        servers[at_work].tell(seconds=1000, working=601)
    assert answer.result(120) == 200
    wait(lambda: running.status["totals"]["requests"] == 1, 60)
    status = running.status
    assert status["totals"]["retried"] == 1
    assert status["servers"][at_work]["failed"] == 1 and status["servers"][at_work]["why"]


@needs_root
def test_the_only_server_is_not_cut_off(tmp_path: Path, servers: list[StandIn]) -> None:
    """Nobody else could take its requests."""
    with gateway(tmp_path, [servers[0].port]) as running:
        servers[0].tell(seconds=4, working=601)
        assert running.post().status_code in (200, 503)
        servers[0].tell(seconds=1000)
        running.wait_for("server-0")
        answer = post_beside(running, servers[:1])
        servers[0].tell(seconds=1000, working=601)
        running.wait_for()
        time.sleep(3)  # it would be cut off at the next look
        servers[0].tell()
        assert answer.result(60) == 200
        wait(lambda: running.status["totals"]["requests"] == 2, 60)
        assert running.status["totals"]["retried"] == 0


# Its own processes


def test_without_the_watcher_requests_pass(running: Running, servers: list[StandIn]) -> None:
    assert running.watcher
    running.watcher.kill()
    running.watcher.wait()
    servers[0].kill()
    assert {running.post().status_code for _ in range(4)} == {200}
    running.start_watcher()
    running.wait_for("server-1")
    running.post()
    wait(lambda: running.status["totals"]["requests"] > 0, 60)  # its new socket is found


def test_nginx_takes_the_socket_that_systemd_holds(tmp_path: Path) -> None:
    """Clients wait while it restarts, and none is refused."""
    for name in ("spool", "health"):
        (tmp_path / name).mkdir()
    (tmp_path / "health" / "none.json").write_text("{}\n")
    (tmp_path / "servers.conf").write_text(
        "upstream stt { server 127.0.0.1:9; }\nmap $host $each_server { default x; }\n"
    )
    (tmp_path / "places.conf").write_text("limit_conn work 1;\n")
    (tmp_path / "nginx.log").touch()
    with socket.create_server(("127.0.0.1", 0)) as held:
        held.setblocking(False)  # as the unit asks of systemd: NonBlocking=
        port, fd = held.getsockname()[1], held.fileno()
        text = nginx_conf(Gateway(port, 1, "", str(tmp_path), "127.0.0.1"))
        statuses: list[int] = []

        def client() -> None:
            url = f"http://127.0.0.1:{port}/health"
            statuses.append(httpx.get(url, timeout=30).status_code)

        for _ in range(2):
            clients = [threading.Thread(target=client) for _ in range(3)]
            for each in clients:
                each.start()
            time.sleep(0.3)
            assert len(statuses) in (0, 3), "somebody answers already"
            environment = {**os.environ, "NGINX": f"{fd};"}
            nginx = start_nginx(tmp_path, text, env=environment, pass_fds=[fd])
            for each in clients:
                each.join()
            time.sleep(1)  # a process of nginx that only starts would not notice the end
            nginx.send_signal(signal.SIGQUIT)
            nginx.wait(30)
        assert statuses == [503] * 6, (tmp_path / "nginx.log").read_text()


def test_what_runs_ends_before_nginx_does(running: Running, servers: list[StandIn]) -> None:
    for server in servers:
        server.tell(seconds=1000)
    answer = post_beside(running, servers)
    running.nginx.send_signal(signal.SIGQUIT)

    def listens() -> bool:
        with suppress(ConnectionError), socket.create_connection(("127.0.0.1", running.port)):
            return True
        return False

    wait(lambda: not listens(), 60)
    time.sleep(1)  # it would have ended
    assert running.nginx.poll() is None
    for server in servers:
        server.tell()
    running.nginx.wait(60)
    assert answer.result(60) == 200


def test_nothing_of_a_request_is_in_its_logs(running: Running) -> None:
    running.post(b"words that were spoken")
    with suppress(httpx.HTTPError):
        running.get("/v1/models")
    written = running.log + str(running.status)
    assert "words that were" not in written and KEY not in written


def test_a_wrong_file_of_settings_ends_the_watcher(running: Running) -> None:
    file = running.home / "settings.json"
    file.write_text('{"servers": []}')
    assert running.watcher
    running.watcher.kill()
    running.watcher.wait()
    with pytest.raises(AssertionError, match="is not a file of settings"):
        running.start_watcher()
    assert running.watcher.wait() == 78
