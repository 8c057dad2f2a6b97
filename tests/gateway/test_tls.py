"""The gateway with HTTPS: real nginx, certificates of its own authority and of an operator."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from agent.certificate import not_after
from declaration.tls import is_for
from roles.stt_gateway.machine import authority as module
from roles.stt_gateway.machine.authority import DAYS, RENEW_DAYS, Authority
from roles.stt_gateway.nginx import NO_TLS, Gateway, Tls, nginx_conf
from tests.gateway.gateway import (
    Running,
    StandIn,
    gateway,
    https_gateway,
    needs_nginx,
    post_beside,
    stand_ins,
    start_nginx,
)
from tests.hanging import hanging
from tests.server.server import wait

pytestmark = needs_nginx

NAMES = ["127.0.0.1", "localhost", "stt.test"]


def own_certificate(directory: Path) -> Tls:
    """A certificate that an operator might have, which is its own authority."""
    made = Tls(str(directory / "own.pem"), str(directory / "own.key"))
    words = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=own", "-days", "30")
    names = ("-addext", "subjectAltName=IP:127.0.0.1")
    files = ("-keyout", made.key, "-out", made.certificate)
    subprocess.run(["openssl", *words, *names, *files], check=True, capture_output=True)
    return made


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[StandIn]]:
    with stand_ins(tmp_path, 2) as found:
        yield found


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    (tmp_path / "authority").mkdir(mode=0o700)
    return Authority(tmp_path / "authority", "the gateway's own", NAMES)


@pytest.fixture
def running(tmp_path: Path, servers: list[StandIn], authority: Authority) -> Iterator[Running]:
    with https_gateway(tmp_path, [server.port for server in servers], authority) as found:
        yield found


def shown(running: Running) -> str:
    """The certificate that it shows now."""
    return ssl.get_server_certificate(("127.0.0.1", running.port), timeout=10)


# What clients see


def test_who_trusts_its_authority_is_answered(running: Running) -> None:
    assert running.url.startswith("https://")
    assert running.post(b"x" * 100_000).status_code == 200
    for name in NAMES:
        context = ssl.create_default_context(cafile=str(running.trusted))
        with (
            socket.create_connection(("127.0.0.1", running.port), timeout=10) as client,
            context.wrap_socket(client, server_hostname=name) as secure,
        ):
            assert secure.version() == "TLSv1.3"


def test_who_trusts_another_authority_or_name_is_not_deceived(
    running: Running, tmp_path: Path
) -> None:
    other = ssl.create_default_context(cafile=own_certificate(tmp_path).certificate)
    for verify in (True, other):
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            running.get("/health", verify=verify)
    context = ssl.create_default_context(cafile=str(running.trusted))
    with (
        socket.create_connection(("127.0.0.1", running.port), timeout=10) as client,
        pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"),
    ):
        context.wrap_socket(client, server_hostname="other.test")


def handshake(running: Running, version: ssl.TLSVersion, ciphers: str = "ALL:@SECLEVEL=0") -> str:
    """The version and the cipher that a client gets that speaks only one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers(ciphers)
    context.minimum_version = context.maximum_version = version
    with (
        socket.create_connection(("127.0.0.1", running.port), timeout=10) as client,
        context.wrap_socket(client) as secure,
    ):
        cipher = secure.cipher()
        assert cipher
        return f"{secure.version()} {cipher[0]}"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_old_protocols_and_ciphers_are_refused(running: Running) -> None:
    assert handshake(running, ssl.TLSVersion.TLSv1_2).startswith("TLSv1.2 ECDHE-ECDSA-")
    for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            handshake(running, version)
    for weak in ("ECDHE-ECDSA-AES128-SHA256", "ECDHE-ECDSA-AES256-SHA", "AES128-GCM-SHA256"):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            handshake(running, ssl.TLSVersion.TLSv1_2, f"{weak}:@SECLEVEL=0")


def test_who_speaks_plain_http_is_told(running: Running) -> None:
    answer = httpx.get(f"http://127.0.0.1:{running.port}/v1/models", timeout=60)
    assert answer.status_code == 400 and answer.json()["error"]["message"] == NO_TLS
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_events_pass_as_they_come(running: Running, servers: list[StandIn]) -> None:
    assert running.events(servers) == ["data: 0", "data: 1", "data: 2"]


def websocket(running: Running) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(running.trusted))
    client = socket.create_connection(("127.0.0.1", running.port), timeout=30)
    secure = context.wrap_socket(client, server_hostname="127.0.0.1")
    secure.sendall(
        b"GET /v1/realtime HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        + f"Authorization: Bearer {running.key}\r\n\r\n".encode()
    )
    assert secure.recv(4096).startswith(b"HTTP/1.1 101 ")
    return secure


# Without TLS, for Open WebUI


def plain_port(running: Running) -> int:
    lines = (running.home / "nginx.conf").read_text().splitlines()
    [line] = [each for each in lines if each.strip().startswith("listen ") and "ssl" not in each]
    return int(line.rpartition(":")[2].rstrip(";"))


def test_open_webui_is_answered_without_tls_and_nobody_else(
    tmp_path: Path, running: Running, servers: list[StandIn]
) -> None:
    url = f"http://127.0.0.1:{plain_port(running)}"
    answer = httpx.post(f"{url}/v1/x", content=b"x", headers=running.headers, timeout=30)
    assert answer.status_code == 200
    assert httpx.get(f"{url}/v1/models", timeout=60).status_code == 401, (
        "with the key, as everywhere"
    )
    conf = running.home / "nginx.conf"
    conf.write_text(conf.read_text().replace(":(?!127\\.0\\.0\\.1/)", ":(?!127\\.0\\.0\\.11/)"))
    running.nginx.send_signal(signal.SIGHUP)

    def refused() -> bool:
        answer = httpx.get(f"{url}/v1/models", headers=running.headers, timeout=60)
        return answer.status_code == 403 and "stt_url" in answer.json()["error"]["message"]

    wait(refused, 60)
    unread = httpx.get(f"{url}/v1/models", headers={"X": "x" * 40_000}, timeout=60)
    assert unread.status_code == 400 and set(unread.json()) == {"error"}
    assert running.get("/v1/models").status_code == 200, "with TLS it does not matter who asks"


def test_nobody_is_answered_without_tls_where_there_is_no_open_webui(tmp_path: Path) -> None:
    text = nginx_conf(Gateway(8000, 1, "", tls=Tls("/c", "/k")))
    assert text.count("listen ") == 1 and "listen 0.0.0.0:8000 ssl;" in text


# Another certificate


def test_a_certificate_that_ends_soon_is_replaced(
    running: Running, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, root = shown(running), running.trusted.read_text() if running.trusted else ""
    monkeypatch.setattr("roles.stt_gateway.machine.authority.DAYS", RENEW_DAYS - 1)
    authority.certificate.unlink()
    authority.renew()
    assert running.watcher
    running.watcher.kill()
    running.watcher.wait()
    running.start_watcher()
    wait(lambda: shown(running) != first, 60)
    days = (not_after(shown(running)) - time.time()) / 86400
    assert DAYS - 1 < days <= DAYS
    assert running.trusted and running.trusted.read_text() == root, "clients need not trust again"
    assert running.post().status_code == 200


def test_another_certificate_cuts_nothing(tmp_path: Path, servers: list[StandIn]) -> None:
    """An operator's files are replaced: what runs goes on, what comes gets the new one."""
    own = own_certificate(tmp_path)
    ports = [server.port for server in servers]
    with gateway(tmp_path, ports, tls=own, trusted=Path(own.certificate)) as running:
        first = shown(running)
        for server in servers:
            server.tell(seconds=1000)
        answer = post_beside(running, servers)
        with websocket(running) as client:
            own_certificate(tmp_path)
            wait(lambda: running.has_read(Path(own.certificate)), 60)
            assert shown(running) != first
            time.sleep(1)  # whoever cuts them off does so by then
            client.sendall(b"a frame")
            assert client.recv(100) == b"a frame"
        for server in servers:
            server.tell()
        assert answer.result(60) == 200
        assert running.post().status_code == 200
        assert running.nginx.poll() is None


def test_nginx_takes_both_sockets_and_keeps_them(tmp_path: Path) -> None:
    """As systemd hands them over: the one with TLS and the one without, also after a reload."""
    for name in ("spool", "unused", "health"):
        (tmp_path / name).mkdir()
    (tmp_path / "health" / "none.json").write_text("{}\n")
    (tmp_path / "servers.conf").write_text(
        "upstream stt { server 127.0.0.1:9; }\nmap $host $each_server { default x; }\n"
    )
    (tmp_path / "places.conf").write_text("limit_conn work 1;\n")
    own = own_certificate(tmp_path)
    with (
        socket.create_server(("127.0.0.1", 0)) as secure,
        socket.create_server(("127.0.0.1", 0)) as plain,
    ):
        ports = [each.getsockname()[1] for each in (secure, plain)]
        for each in (secure, plain):
            each.setblocking(False)
        tls = replace(own, plain_for="127.0.0.1", plain_port=ports[1])
        text = nginx_conf(Gateway(ports[0], 1, "", str(tmp_path), "127.0.0.1", tls))
        fds = [secure.fileno(), plain.fileno()]
        variables = {**os.environ, "NGINX": "".join(f"{fd};" for fd in fds)}
        nginx = start_nginx(tmp_path, text, env=variables, pass_fds=fds)
        trust = ssl.create_default_context(cafile=own.certificate)

        def statuses() -> list[int]:
            found = httpx.get(f"https://127.0.0.1:{ports[0]}/health", verify=trust, timeout=20)
            return [
                found.status_code,
                httpx.get(f"http://127.0.0.1:{ports[1]}/health", timeout=20).status_code,
            ]

        try:
            assert statuses() == [503, 503]
            nginx.send_signal(signal.SIGHUP)
            time.sleep(1)
            assert statuses() == [503, 503]
        finally:
            nginx.send_signal(signal.SIGQUIT)
            nginx.wait(30)
        assert "inherited" in (tmp_path / "nginx.log").read_text()
        secure.listen()  # it is still there


# The authority


def test_it_makes_a_certificate_once(authority: Authority) -> None:
    assert authority.renew() and not authority.renew()
    made = authority.certificate.read_text()
    for name in NAMES:
        assert is_for(str(authority.certificate), str(authority.certificate), name)
    assert not is_for(str(authority.certificate), str(authority.certificate), "other.test")
    other = replace(authority, names=[*NAMES, "more.test"])
    assert other.renew() and not other.renew()
    assert other.certificate.read_text() != made
    assert is_for(str(other.certificate), str(other.certificate), "more.test")


def test_nobody_else_reads_its_keys(authority: Authority) -> None:
    authority.renew()
    root = authority.directory / "root"
    for place in (root / "root.key", authority.certificate):
        assert "PRIVATE KEY" in place.read_text()
        assert place.stat().st_mode & 0o077 == 0
    assert "PRIVATE" not in (root / "root.crt").read_text()
    assert not (authority.directory / "new").exists()


def test_it_goes_on_after_it_was_cut_off(authority: Authority) -> None:
    (authority.directory / "new").mkdir()
    (authority.directory / "new" / "root.key").write_text("half a key")
    assert authority.renew()
    root = authority.directory / "root" / "root.crt"
    words = ("openssl", "verify", "-CAfile", str(root), str(authority.certificate))
    assert subprocess.run(words, capture_output=True).returncode == 0


def test_openssl_that_hangs_is_ended(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The watcher goes on with the certificate that it has, and tries again later."""
    authority.renew()
    monkeypatch.setattr(module, "_PROGRAM", str(hanging(tmp_path / "openssl")))
    monkeypatch.setattr(module, "_DEADLINE", 0.2)
    began = time.monotonic()
    with pytest.raises(OSError, match=r"openssl x509 has not ended in 0 s\. See what keeps the"):
        authority.renew()
    assert time.monotonic() - began < 30 and authority.certificate.exists()


def test_a_certificate_of_another_authority_is_replaced(authority: Authority) -> None:
    authority.renew()
    kept = authority.certificate.read_text()
    (authority.directory / "root").rename(authority.directory / "old")
    assert authority.renew() and authority.certificate.read_text() != kept
