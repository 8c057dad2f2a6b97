"""The Incus daemon of this machine, asked over its socket: clients take longer."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

T = TypeVar("T")


class DaemonError(Exception):
    """The daemon refused something, or did not answer."""


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("incus", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _asks_another() -> bool:
    """Whether the client asks another daemon than this machine's: ``incus remote switch``."""
    if remote := os.environ.get("INCUS_REMOTE"):
        return remote != "local"
    place = os.environ.get("INCUS_CONF") or Path.home() / ".config" / "incus"
    try:
        text = Path(place, "config.yml").read_text(encoding="utf-8")
    except OSError:
        return False
    chosen = re.search(r"^default-remote:\s*[\"']?([^\s\"']+)", text, re.MULTILINE)
    return chosen is not None and chosen[1] != "local"


def own_socket() -> str:
    """The socket that the client uses here (INCUS_SOCKET, INCUS_DIR).

    Empty where there is no client, where it asks another daemon, where there is none, and where
    this user may not ask it: the client says why.
    """
    if _asks_another() or not shutil.which("incus"):
        return ""
    directory = os.environ.get("INCUS_DIR") or "/var/lib/incus"
    place = os.environ.get("INCUS_SOCKET") or f"{directory}/unix.socket"
    return place if os.access(place, os.W_OK) else ""


def own_daemon(end: float) -> Daemon | None:
    """The daemon of this machine, until ``end``; None where the client has to ask.

    In a cluster it has to: Incus runs nothing with recorded output on another member (6.0).
    """
    path = own_socket()
    if not path:
        return None
    daemon = Daemon(path, end)
    try:
        clustered = daemon.get("/1.0")["environment"]["server_clustered"]
    except (DaemonError, LookupError):  # the client says what is wrong
        return None
    return None if clustered else daemon


@dataclass(frozen=True)
class Daemon:
    """The daemon behind a socket; nothing waits beyond ``end``, a time of ``time.monotonic``."""

    path: str
    end: float

    def _ask(self, method: str, path: str, body: object = None) -> bytes:
        connection = _Connection(self.path, max(0.1, self.end - time.monotonic()))
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            said = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise DaemonError(str(error) or type(error).__name__) from None
        finally:
            connection.close()
        if answer.status >= http.HTTPStatus.BAD_REQUEST:
            raise DaemonError(_refusal(said) or f"{method} {path}: status {answer.status}")
        return said

    def get(self, path: str) -> Any:
        """An answer of Incus' API.

        Raises:
            DaemonError: it is refused, or there is no answer in time.
        """
        return json.loads(self._ask("GET", path))["metadata"]

    def run(self, project: str, name: str, command: Sequence[str], deadline: int) -> str:
        """What a command prints in a machine, whatever its status; it gets ``deadline`` s.

        Incus notes it in a file, which is taken away again.

        Raises:
            DaemonError: it is refused, or it has not ended in time.
        """
        within = urlencode({"project": project})
        wanted = {"command": command, "record-output": True, "wait-for-websocket": False}
        path = f"/1.0/instances/{quote(name)}/exec?{within}"
        began = json.loads(self._ask("POST", path, wanted))["operation"]
        ended = self.get(f"{began}/wait?timeout={deadline}")["metadata"] or {}
        files = [f"{file}?{within}" for _, file in sorted((ended.get("output") or {}).items())]
        if not files:
            raise DaemonError(f"{command[0]} has not ended in {deadline} s")
        said = self._ask("GET", files[0])
        for file in files:
            self._ask("DELETE", file)
        return said.decode(errors="replace")


def _refusal(said: bytes) -> str:
    """Why the daemon refuses something."""
    try:
        return str(json.loads(said)["error"])
    except (ValueError, KeyError, TypeError):
        return ""


def begin(work: Callable[[], T]) -> Future[T]:
    """Do it beside this thread. What is still under way does not keep the program from its end."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # whoever asks for the result gets it
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def side_by_side(work: Callable[[T], None], each: Iterable[T], at_a_time: int) -> None:
    """Do something for each, so many at a time."""
    left = deque(each)

    def some() -> None:
        while left:
            try:
                next_one = left.popleft()
            except IndexError:  # another thread has it
                return
            work(next_one)

    for future in [begin(some) for _ in range(at_a_time)]:
        future.result()
