"""A gateway as its machine has it: nginx and the watcher as processes, and servers behind them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from roles.stt_gateway.machine.authority import Authority
from roles.stt_gateway.nginx import Gateway, Tls, keys_text, nginx_conf
from tests.ports import free_port
from tests.server.server import ROOT, wait

KEY = "~test/key+of-the.tests"
NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
SOURCE = ROOT / "roles" / "stt_gateway" / "machine"
HERE = Path(__file__).parent

needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root ends connections")


@dataclass
class StandIn:
    """A server that answers with hashes, as a process (``stand_in.py``)."""

    port: int
    file: Path
    process: subprocess.Popen[bytes] | None = None

    def tell(self, **control: Any) -> None:
        part = self.file.with_suffix(".part")
        part.write_text(json.dumps(control))
        part.replace(self.file)

    def start(self) -> None:
        words = [sys.executable, str(HERE / "stand_in.py"), str(self.port), str(self.file)]
        self.process = subprocess.Popen(words)

    def signal(self, number: signal.Signals) -> None:
        assert self.process
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
        self.process = None

    @property
    def answers(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/health", timeout=2).is_success
        except httpx.TransportError:
            return False

    @property
    def work(self) -> dict[str, int]:
        """How many requests with work it has begun, and the most at a time."""
        url = f"http://127.0.0.1:{self.port}/v1/work"
        found: dict[str, int] = httpx.get(url, timeout=60).json()
        return found


@contextmanager
def stand_ins(directory: Path, number: int) -> Iterator[list[StandIn]]:
    """So many servers that answer."""
    with ExitStack() as stack:
        made: list[StandIn] = []
        for _ in range(number):
            port = free_port()
            server = StandIn(port, directory / f"control-{port}.json")
            server.tell()
            server.start()
            stack.callback(server.kill)
            made.append(server)
        for server in made:
            wait(lambda server=server: server.answers)  # type: ignore[misc]
        yield made


@dataclass
class Running:
    """A gateway that runs."""

    home: Path
    port: int
    watcher_port: int
    key: str
    nginx: subprocess.Popen[bytes]
    watcher: subprocess.Popen[bytes] | None = None
    servers: Sequence[Mapping[str, Any]] = field(default_factory=list)
    #: The file with what clients trust, where it speaks HTTPS.
    trusted: Path | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self.trusted else 'http'}://127.0.0.1:{self.port}"

    @property
    def verify(self) -> ssl.SSLContext | bool:
        return ssl.create_default_context(cafile=str(self.trusted)) if self.trusted else True

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    @property
    def log(self) -> str:
        return (self.home / "nginx.log").read_text() + (self.home / "watcher.log").read_text()

    @property
    def status(self) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.watcher_port}/status"
        found: dict[str, Any] = httpx.get(url, timeout=60).json()
        return found

    def get(self, path: str, **more: Any) -> httpx.Response:
        more = {"verify": self.verify, "timeout": 30, **more}
        return httpx.get(self.url + path, headers=self.headers, **more)

    def post(self, content: Any = b"x", path: str = "/v1/audio/transcriptions") -> httpx.Response:
        return httpx.post(
            self.url + path,
            content=content,
            headers=self.headers,
            verify=self.verify,
            timeout=300,
        )

    def events(self, servers: Sequence[StandIn]) -> list[str]:
        """A stream's, each of which a server sends once the one before was seen here."""
        found: list[str] = []
        more: dict[str, Any] = {"headers": self.headers, "verify": self.verify, "timeout": 30}
        with httpx.stream("GET", f"{self.url}/v1/stream", **more) as answer:
            for line in filter(None, answer.iter_lines()):
                found.append(line)
                for server in servers:
                    server.tell(seen=len(found))
        return found

    def serving(self) -> list[str]:
        return [each["name"] for each in self.status["servers"] if each["serving"]]

    def has_read(self, file: Path) -> bool:
        """Whether each process of nginx that takes requests began after this file was written."""
        boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        proc, began = Path("/proc"), []
        with suppress(FileNotFoundError, ProcessLookupError):  # one ends just now
            children = proc / f"{self.nginx.pid}/task/{self.nginx.pid}/children"
            for pid in children.read_text().split():
                if b"shutting down" not in (proc / pid / "cmdline").read_bytes():
                    fields = (proc / pid / "stat").read_text().rpartition(")")[2].split()
                    began.append(boot + int(fields[19]) / os.sysconf("SC_CLK_TCK"))
            # The kernel rounds the beginning down to 0.01 s.
            return bool(began) and min(began) > file.stat().st_mtime - 0.02
        return False

    def wait_for(self, *names: str) -> None:
        """Until exactly these servers get requests, and nginx knows it."""
        try:
            wait(lambda: sorted(self.serving()) == sorted(names), 60)
            wait(lambda: self.has_read(self.home / "servers.conf"), 60)
        except AssertionError:
            raise AssertionError(f"{self.status}\n{self.log}") from None

    def start_watcher(self) -> None:
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(self.home / "program")}
        words = [sys.executable, "-m", "stt_gateway", str(self.home / "settings.json")]
        with (self.home / "watcher.log").open("ab") as log:
            self.watcher = subprocess.Popen(words, env=environment, stdout=log, stderr=log)

        def there() -> bool:
            assert self.watcher and self.watcher.poll() is None, self.log
            try:
                return httpx.get(f"http://127.0.0.1:{self.watcher_port}/health").is_success
            except httpx.TransportError:
                return False

        wait(there)


def post_beside(running: Running, servers: Sequence[StandIn]) -> Future[int]:
    """The status of a request that is under way, once one of these servers works on it."""
    before = begun(servers)
    with_thread = ThreadPoolExecutor(1)
    answer = with_thread.submit(lambda: running.post().status_code)
    with_thread.shutdown(wait=False)
    wait(lambda: begun(servers) > before, 60)
    return answer


def begun(servers: Sequence[StandIn]) -> int:
    """How many requests these servers have begun to work on."""
    return sum(server.work["begun"] for server in servers)


def start_nginx(home: Path, text: str, **more: Any) -> subprocess.Popen[bytes]:
    """nginx with a configuration."""
    assert NGINX
    # Where root runs the tests, its processes have to read what is root's.
    (home / "nginx.conf").write_text(("user root;\n" if os.geteuid() == 0 else "") + text)
    words = [NGINX, "-e", "stderr", "-p", str(home), "-c", str(home / "nginx.conf")]
    with (home / "nginx.log").open("ab") as log:
        return subprocess.Popen(words, stdout=log, stderr=log, **more)


@contextmanager
def gateway(
    directory: Path,
    ports: Sequence[int],
    *,
    key: str = KEY,
    more_keys: Sequence[str] = (),
    upload_mb: int = 30,
    waiting: int = 32,
    authority: Authority | None = None,
    tls: Tls | None = None,
    trusted: Path | None = None,
    health: str = "/health",
) -> Iterator[Running]:
    """A gateway in front of servers at these ports, named by their places in the list.

    ``health`` is the path that tells whether they work, where they have no ``/ready``.
    With ``tls`` it speaks HTTPS, and ``trusted`` is what clients trust; ``authority`` makes it.
    """
    home = directory / "gateway"
    home.mkdir()
    keys = home / "keys.conf" if key else None
    if keys:
        keys.write_text(keys_text([key, *more_keys]))
        authorization = home / "authorization"
        authorization.write_text(f"Authorization: Bearer {key}\n")
    port, watcher_port = free_port(), free_port()
    servers = [
        {"name": f"server-{number}", "address": "127.0.0.1", "port": each, "health": health}
        for number, each in enumerate(ports)
    ]
    settings = {
        "servers": servers,
        "waiting": waiting,
        "upload_mb": upload_mb,
        "home": str(home),
        "files": [str(keys), str(authorization)] if keys else [],
        "authorization": str(authorization) if keys else None,
        "authority": None,
        "port": watcher_port,
    }
    if authority:
        settings["authority"] = {**vars(authority), "directory": str(authority.directory)}
    elif tls:
        settings["files"] = [*settings["files"], tls.certificate, tls.key]  # type: ignore[misc]
    (home / "settings.json").write_text(json.dumps(settings))
    (home / "program").mkdir()
    (home / "program" / "stt_gateway").symlink_to(SOURCE)
    (home / "nginx.log").touch()
    text = nginx_conf(Gateway(port, upload_mb, str(keys or ""), str(home), "127.0.0.1", tls))
    with ExitStack() as stack:
        made = Running(home, port, watcher_port, key, None, None, servers, trusted)  # type: ignore[arg-type]
        stack.callback(lambda: _end(made.watcher, signal.SIGKILL))
        made.start_watcher()
        made.nginx = start_nginx(home, text)
        stack.callback(lambda: _end(made.nginx, signal.SIGTERM))

        def there() -> bool:
            assert made.nginx.poll() is None, made.log
            try:
                return made.get("/health").status_code in (200, 503)
            except httpx.TransportError:
                return False

        wait(there)
        yield made


@contextmanager
def https_gateway(directory: Path, ports: Sequence[int], authority: Authority) -> Iterator[Running]:
    """A gateway whose watcher makes its certificate."""
    both = str(authority.certificate)
    plain = Tls(both, both, "127.0.0.1", free_port())
    root = authority.directory / "root" / "root.crt"
    with gateway(directory, ports, authority=authority, tls=plain, trusted=root) as found:
        yield found


def _end(process: subprocess.Popen[bytes] | None, how: signal.Signals) -> None:
    if process and process.poll() is None:
        process.send_signal(how)
        process.wait(30)
