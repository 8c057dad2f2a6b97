"""A steady load through a gateway, and what goes wrong with its servers meanwhile."""

from __future__ import annotations

import hashlib
import http.client
import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

from tests.gateway.gateway import Running, StandIn
from tests.server.server import RECORDINGS

#: Bytes of a body: a dictation of a second, and a long recording.
LEAST, MOST = 30_000, 25_000_000
#: Clients at a time.
CLIENTS = 8


@dataclass
class Request:
    """A body, and the answer that is right."""

    body: bytes
    right: str
    kind: str = "application/octet-stream"


class Hashes:
    """Bodies of every size between ``LEAST`` and ``MOST``, no two alike."""

    def __init__(self, seed: int, most: int = MOST) -> None:
        self._random = random.Random(seed)
        self._noise = random.Random(seed).randbytes(most)
        self._most = most
        self._lock = threading.Lock()

    def __call__(self) -> Request:
        with self._lock:
            # As many of each order of magnitude.
            size = round(LEAST * (self._most / LEAST) ** self._random.random())
            first = self._random.randbytes(16)
        body = first + self._noise[: size - 16]
        return Request(body, hashlib.sha256(body).hexdigest())


class Recordings:
    """Forms with recordings, each of which has words of its own."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        words = ("one two three", "four five six", "two zero two six", "hello world")
        self._known = {each: RECORDINGS / f"{each.replace(' ', '_')}.wav" for each in words}

    def __call__(self) -> Request:
        with self._lock:
            words = self._random.choice(sorted(self._known))
        form = httpx.Request(
            "POST",
            "http://unused",
            data={"model": "whisper-1"},
            files={"file": ("recording.wav", self._known[words].read_bytes())},
        )
        return Request(form.read(), f'"{words}"', form.headers["Content-Type"])


@dataclass
class Load:
    """``CLIENTS`` that ask one after the other; each answer with the time that it took."""

    gateway: Running
    make: Callable[[], Request]
    clients: int = CLIENTS
    answers: list[tuple[float, int, str, int]] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Load:
        self._threads = [threading.Thread(target=self._ask) for _ in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        while not self._over.is_set():
            request = self.make()
            began = time.monotonic()
            status, said = self._post(request)
            right = "right" if status == 200 and request.right in said else said[:120]
            took = time.monotonic() - began
            self.answers.append((took, status, right, len(request.body)))

    def _post(self, request: Request) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.gateway.port, timeout=300)
        headers = {**self.gateway.headers, "Content-Type": request.kind}
        try:
            connection.request("POST", "/v1/audio/transcriptions", request.body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except (OSError, http.client.HTTPException) as error:
            return 0, repr(error)
        finally:
            connection.close()

    @property
    def wrong(self) -> Counter[str]:
        """The answers that are not right, and how many there are of each."""
        return Counter(f"{s}: {said}" for _, s, said, _ in self.answers if said != "right")


# What goes wrong, and how it comes back


@contextmanager
def killed(server: StandIn) -> Iterator[None]:
    """Its process is gone at once."""
    server.kill()
    yield
    server.start()


@contextmanager
def hung(server: StandIn) -> Iterator[None]:
    """It takes connections, and answers nothing."""
    server.signal(signal.SIGSTOP)
    yield
    server.signal(signal.SIGCONT)


@contextmanager
def unreachable(server: StandIn) -> Iterator[None]:
    """Its packets get lost."""
    table = f"stt_test_gateway_{server.port}"
    chain = f"type filter hook output priority 0; tcp dport {server.port} drop;"
    rules = f"table inet {table} {{ chain out {{ {chain} tcp sport {server.port} drop; }}; }}\n"
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
    try:
        yield
    finally:
        subprocess.run(["nft", "delete", "table", "inet", table], check=True)


@contextmanager
def without_memory(server: StandIn) -> Iterator[None]:
    """It answers everything with 503."""
    server.tell(health=503, status=503)
    yield
    server.tell(seconds=WORK_SECONDS)


@contextmanager
def failing(server: StandIn) -> Iterator[None]:
    """It answers all work with 500, and says that it is well: its card is broken."""
    server.tell(status=500)
    yield
    server.tell(seconds=WORK_SECONDS)


@contextmanager
def restarted(server: StandIn) -> Iterator[None]:
    """It ends, and starts again as fast as it can."""
    server.signal(signal.SIGTERM)
    server.kill()
    server.start()
    yield


#: Seconds that a server works on each request, so that there is always one at work.
WORK_SECONDS = 0.15
#: Each fault with the seconds that it lasts: those that need the watcher last until it has acted.
FAULTS: dict[Callable[[StandIn], object], tuple[float, float]] = {
    killed: (0.5, 4),
    hung: (12, 16),
    unreachable: (12, 16),
    without_memory: (1, 4),
    failing: (1, 4),
    restarted: (0, 1),
}


@dataclass
class Row:
    """A fault, for the report."""

    at: float
    kind: str
    server: int
    seconds: float


def break_servers(
    servers: Sequence[StandIn],
    number: int,
    seed: int,
    kinds: Sequence[Callable[[StandIn], object]] = (),
    between: Callable[[], object] = lambda: None,
) -> list[Row]:
    """So many faults at seeded moments, every kind in turn, one server at a time.

    ``between`` is called before each; without it, the one before may still be felt.
    """
    chosen = random.Random(seed)
    kinds = kinds or list(FAULTS)
    if os.geteuid() != 0:  # who is not root ends no connections
        kinds = [killed, without_memory, failing, restarted]
    began, rows = time.monotonic(), []
    order: list[Callable[[StandIn], object]] = []
    while len(order) < number:
        order += chosen.sample(kinds, len(kinds))
    for kind in order[:number]:
        between()
        time.sleep(chosen.uniform(0.2, 2.0))
        victim = chosen.randrange(len(servers))
        seconds = chosen.uniform(*FAULTS[kind])
        name = getattr(kind, "__name__", "")
        rows.append(Row(round(time.monotonic() - began, 1), name, victim, round(seconds, 1)))
        with kind(servers[victim]):  # type: ignore[attr-defined]
            time.sleep(seconds)
    return rows
