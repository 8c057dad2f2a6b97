"""The daemon of this machine over its socket, with a stand-in for the daemon."""

from __future__ import annotations

import json
import os
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from host.daemon import Daemon, DaemonError, begin, own_daemon, own_socket, side_by_side

LOG = "/1.0/instances/box/logs/exec-output/"
OPERATION = "/1.0/operations/7"


class Handler(BaseHTTPRequestHandler):
    """Answers as Incus does."""

    asked: list[str]
    ended: bool
    clustered: bool

    def address_string(self) -> str:
        return "a socket"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.asked.append(f"{self.command} {self.path} {body.decode()}".strip())
        output: object = {"1": f"{LOG}a.stdout", "2": f"{LOG}a.stderr"} if self.ended else None
        answers: dict[str, object] = {
            "POST /1.0/instances/box/exec": {"operation": OPERATION},
            f"GET {OPERATION}/wait": {"metadata": {"metadata": output and {"output": output}}},
            "GET /1.0/one": {"metadata": {"answer": 1}},
            "GET /1.0": {"metadata": {"environment": {"server_clustered": self.clustered}}},
        }
        path = self.path.partition("?")[0]
        if path.startswith(LOG):
            status, text = 200, "said"
        elif found := answers.get(f"{self.command} {path}"):
            status, text = 200, json.dumps(found)
        else:
            status, text = 404, json.dumps({"error": "there is no such thing"})
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    do_GET = do_POST = do_DELETE = _answer  # noqa: N815  # the library's names


class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """The socket of a daemon; what it was asked is in Handler.asked."""
    Handler.asked, Handler.ended, Handler.clustered = [], True, False
    path = tmp_path / "unix.socket"
    with Server(str(path), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield path
        server.shutdown()


def daemon(place: Path) -> Daemon:
    return Daemon(str(place), time.monotonic() + 60)


def test_an_answer_and_a_refusal(place: Path) -> None:
    assert daemon(place).get("/1.0/one") == {"answer": 1}
    with pytest.raises(DaemonError, match=r"^there is no such thing$"):
        daemon(place).get("/1.0/two")
    with pytest.raises(DaemonError):
        daemon(place.with_name("none")).get("/1.0/one")


def test_what_a_command_says_is_not_left_behind(place: Path) -> None:
    assert daemon(place).run("my lab", "box", ["agent", "check"], 30) == "said"
    posted = Handler.asked[0].partition(" {")
    assert posted[0] == "POST /1.0/instances/box/exec?project=my+lab"
    wanted = {"command": ["agent", "check"], "record-output": True, "wait-for-websocket": False}
    assert json.loads("{" + posted[2]) == wanted
    assert Handler.asked[1:] == [
        f"GET {OPERATION}/wait?timeout=30",
        f"GET {LOG}a.stdout?project=my+lab",
        f"DELETE {LOG}a.stdout?project=my+lab",
        f"DELETE {LOG}a.stderr?project=my+lab",
    ]


def test_a_command_that_does_not_end(place: Path) -> None:
    Handler.ended = False
    with pytest.raises(DaemonError, match=r"^agent has not ended in 30 s$"):
        daemon(place).run("lab", "box", ["agent"], 30)


@pytest.mark.usefixtures("_client")
def test_the_socket_is_the_one_that_the_client_would_use(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INCUS_DIR", str(place.parent))
    assert own_socket() == str(place)
    monkeypatch.setenv("INCUS_SOCKET", str(place.with_name("none")))
    assert own_socket() == ""
    monkeypatch.delenv("INCUS_SOCKET")

    configuration = place.with_name("config.yml")
    for text, found in (
        ("default-remote: far\n", ""),
        ('default-remote: "far"\n', ""),
        ("default-remote: local\nremotes:\n  far: {}\n", str(place)),
        ("remotes: {}\n", str(place)),
    ):
        configuration.write_text(text)
        assert own_socket() == found, text
    configuration.write_text("default-remote: far\n")
    monkeypatch.setenv("INCUS_REMOTE", "local")
    assert own_socket() == str(place)
    configuration.unlink()
    monkeypatch.setenv("INCUS_REMOTE", "far")
    assert own_socket() == ""
    monkeypatch.delenv("INCUS_REMOTE")
    monkeypatch.setenv("PATH", str(place))  # without a client nothing could be changed
    assert own_socket() == ""


@pytest.mark.usefixtures("_client")
def test_a_member_of_a_cluster_is_asked_by_the_client(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = time.monotonic() + 60
    monkeypatch.setenv("INCUS_SOCKET", str(place))
    assert own_daemon(end) == Daemon(str(place), end)
    Handler.clustered = True
    assert own_daemon(end) is None
    silent = place.with_name("silent")
    with socket.socket(socket.AF_UNIX) as closed:
        closed.bind(str(silent))  # nobody listens
        monkeypatch.setenv("INCUS_SOCKET", str(silent))
        assert own_daemon(end) is None


@pytest.fixture
def _client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client of Incus, whose configuration is in ``tmp_path``."""
    (tmp_path / "incus").touch(mode=0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("INCUS_CONF", str(tmp_path))
    for name in ("INCUS_SOCKET", "INCUS_REMOTE"):
        monkeypatch.delenv(name, raising=False)


def test_so_many_at_a_time() -> None:
    together = threading.Barrier(3, timeout=60)
    done: list[int] = []

    def work(number: int) -> None:
        together.wait()  # breaks where fewer than three are under way
        done.append(number)

    side_by_side(work, range(6), 3)
    assert sorted(done) == list(range(6))
    side_by_side(work, [], 3)


def test_what_fails_beside_this_thread_fails_here() -> None:
    def fail() -> None:
        raise DaemonError("no")

    with pytest.raises(DaemonError):
        begin(fail).result(60)
