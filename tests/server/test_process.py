"""The process: start, systemd, settings that take effect, end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import numpy as np
import pytest
from faster_whisper import WhisperModel, decode_audio

from tests.ports import free_port
from tests.server.server import (
    COMMAND,
    SPEECH,
    Running,
    running,
    settings,
    speech,
    wav,
)


@pytest.mark.parametrize(
    ("asked", "effective"),
    [("int8", "int8_float32"), ("int8_float32", "int8_float32"), ("float32", "float32")],
)
def test_the_compute_type_takes_effect(tmp_path: Path, asked: str, effective: str) -> None:
    with running(tmp_path, STT_COMPUTE_TYPE=asked) as server:
        assert server.get("/health").json()["compute_type"] == effective
        assert server.post().json() == {"text": "one two three"}


def test_without_a_key_file_no_key_is_asked_for(tmp_path: Path) -> None:
    with running(tmp_path, STT_API_KEY_FILE="") as server:
        assert server.get("/v1/models").status_code == 200


def test_threads(tmp_path: Path) -> None:
    counts = []
    for threads in ("1", "4"):
        with running(tmp_path, STT_CPU_THREADS=threads) as server:
            assert server.post().status_code == 200
            counts.append(len(os.listdir(f"/proc/{server.process.pid}/task")))
    assert counts[1] - counts[0] >= 3


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told_once_it_answers(tmp_path: Path, abstract: bool) -> None:
    address = f"@stt-{os.getpid()}" if abstract else str(tmp_path / "notify")
    port = free_port()
    environment = settings(STT_PORT=str(port), NOTIFY_SOCKET=address)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("\0" + address[1:] if abstract else address)
        systemd.settimeout(60)
        process = subprocess.Popen(
            COMMAND, env=environment, cwd=tmp_path, stderr=subprocess.DEVNULL
        )
        try:
            assert systemd.recv(100) == b"READY=1"
            assert httpx.get(f"http://127.0.0.1:{port}/health", timeout=60).status_code == 200
        finally:
            process.kill()
            process.wait()


#: Starts the server as systemd does with a socket, which is a descriptor of this process.
HELD = [
    sys.executable,
    "-c",
    "import os, sys; os.dup2(int(sys.argv[1]), 3); "
    "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1'); "
    "os.execv(sys.argv[2], sys.argv[2:])",
]


def test_clients_wait_at_a_held_port_while_it_restarts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port, fd = held.getsockname()[1], held.fileno()
        command = [*HELD, str(fd), *COMMAND]
        waiting = threading.Event()
        statuses: list[int] = []

        def client() -> None:
            waiting.set()
            statuses.append(httpx.get(f"http://127.0.0.1:{port}/health", timeout=60).status_code)

        for _ in range(2):
            clients = [threading.Thread(target=client) for _ in range(3)]
            for each in clients:
                each.start()
            waiting.wait()
            process = subprocess.Popen(
                command,
                env=settings(STT_PORT=str(port)),
                cwd=tmp_path,
                pass_fds=[fd],
                stderr=subprocess.DEVNULL,
            )
            for each in clients:
                each.join()
            process.terminate()
            process.wait()
        assert statuses == [200] * 6


def test_a_held_port_that_is_another_one_is_an_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        fd = held.fileno()
        done = subprocess.run(
            [*HELD, str(fd), *COMMAND],
            env=settings(STT_PORT="9"),
            cwd=tmp_path,
            pass_fds=[fd],
            capture_output=True,
            text=True,
        )
    assert done.returncode == 78
    assert "STT_PORT are 127.0.0.1 and 9, and the socket of systemd listens on 127" in done.stderr


# The language


def _language(server: Running, **fields: str) -> tuple[str, float]:
    body = server.post(response_format="verbose_json", **fields).json()
    return body["language"], body["language_probability"]


def test_the_language_of_the_setting_and_of_the_request(
    tmp_path: Path, many_languages: Path
) -> None:
    with running(tmp_path, STT_MODEL_DIR=str(many_languages), STT_LANGUAGE="fr") as server:
        assert server.get("/health").json()["language"] == "fr"
        assert _language(server) == ("fr", 1)
        assert _language(server, language="") == ("fr", 1)
        assert _language(server, language="de") == ("de", 1)
        assert _language(server, language="DE") == ("de", 1)
        assert _language(server, path="/v1/audio/translations") == ("fr", 1)


def test_without_a_setting_the_language_is_detected(tmp_path: Path, many_languages: Path) -> None:
    model = WhisperModel(str(many_languages), device="cpu", compute_type="int8")
    detected, probability, _ = model.detect_language(decode_audio(str(SPEECH)))
    assert probability < 1
    with running(tmp_path, STT_MODEL_DIR=str(many_languages)) as server:
        language, found = _language(server)
        assert language == detected
        assert found == pytest.approx(probability, abs=0.01)
        assert _language(server, language="de") == ("de", 1)


# The end


def test_sigterm_ends_it(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        server.post()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) in (0, -signal.SIGTERM)


ASKS = b"GET /health HTTP/1.1\r\nHost: stt\r\n\r\n"
#: One that takes a last request for longer than a slow client needs.
PATIENT = [
    *(sys.executable, "-c"),
    "from stt_server import __main__ as server, protocol; "
    "protocol.LAST_REQUEST_SECONDS = server.GRACE_SECONDS = 60; server.main()",
]


@pytest.mark.parametrize("before", [0, 1])
def test_a_request_on_an_accepted_connection_is_answered_while_it_stops(
    tmp_path: Path, before: int
) -> None:
    with running(tmp_path, command=PATIENT) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
            for _ in range(before):
                client.sendall(ASKS)
                assert b"connection: close" not in _answer(client).lower()
            server.process.send_signal(signal.SIGTERM)
            server.wait_for_log("Shutting down", 60)
            client.sendall(ASKS)
            answer = _answer(client)
            assert answer.startswith(b"HTTP/1.1 200")
            assert b"connection: close" in answer.lower()
            assert client.recv(1) == b""
        assert server.process.wait(60) in (0, -signal.SIGTERM)


def test_an_idle_connection_does_not_keep_it(tmp_path: Path) -> None:
    with (
        running(tmp_path) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=10) as client,
    ):
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) in (0, -signal.SIGTERM)
        assert client.recv(1) == b""


def _answer(client: socket.socket) -> bytes:
    """One answer of /health, with its body."""
    answer = b""
    while not answer.endswith(b"}"):
        part = client.recv(65536)
        assert part, answer
        answer += part
    return answer


def test_sigterm_ends_it_in_the_middle_of_a_transcription(tmp_path: Path, slow_model: Path) -> None:
    minutes = wav(np.tile(np.append(speech(), np.zeros(1600)), 300))
    with running(tmp_path, STT_MODEL_DIR=str(slow_model)) as server:
        client = threading.Thread(target=_post_in_vain, args=(server, minutes))
        client.start()
        server.wait_for_work()
        assert " s of audio in " not in server.log
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) in (0, -signal.SIGTERM)
        assert " s of audio in " not in server.log, "it was transcribed to its end"
        client.join(60)


def _post_in_vain(server: Running, audio: bytes) -> None:
    try:
        server.post(audio)
    except httpx.TransportError:
        return


def test_a_wrong_setting_ends_the_process(tmp_path: Path) -> None:
    done = subprocess.run(
        COMMAND,
        cwd=tmp_path,
        env=settings(STT_MODEL="large-v3"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 78 and not done.stdout
    assert done.stderr.startswith("stt_server: STT_MODEL is unknown; known: STT_ENGINE")


def test_a_model_is_checked_without_a_server(tmp_path: Path) -> None:
    def check(**changes: str) -> tuple[int, str]:
        done = subprocess.run(
            [*COMMAND[:-1], "stt_server.check_model"],
            cwd=tmp_path,
            env=settings(**changes),
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.returncode, done.stdout + done.stderr

    assert check() == (0, "")
    said = f"STT_MODEL_DIR is {str(tmp_path)!r}, which holds no model.bin.\n"
    assert check(STT_MODEL_DIR=str(tmp_path)) == (1, said)
