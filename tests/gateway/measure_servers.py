"""``python -m tests.gateway.measure_servers [ROUNDS]``: what a second server adds to the first.

Two servers, each on a core of its own, with the tiny model. The same requests go through a gateway
that has one of them, and through one that has both, in turn, four at a time. The gateway and the
clients run on the same two cores, so their share of the processor's time is shown too. Turns in
which other programs took more than a twentieth of the two cores do not count, and are repeated.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np

from tests.gateway import gateway as front
from tests.server.server import NAME, Running, running, speech, wav

#: Requests at a time, and of a turn for each server.
CLIENTS, REQUESTS = 4, 12
#: How often the three words are in a recording.
REPEATED = 15
#: The share of the two cores that others may take in a turn, and turns that are tried for each.
OTHERS, TRIES = 0.05, 20


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """What is started meanwhile runs on this core only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def worked(*pids: int) -> float:
    """The processor time of processes and their children until now; s."""
    seconds = 0.0
    for pid in pids:
        process = Path(f"/proc/{pid}")
        fields = (process / "stat").read_text().rpartition(")")[2].split()
        seconds += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        children = (process / "task" / str(pid) / "children").read_text().split()
        seconds += worked(*map(int, children))
    return seconds


def busy() -> float:
    """The time that the machine's cores have worked until now; s."""
    user, nice, system, _, _, *interrupts = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    )
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Turn:
    """Requests a second, and processor time for each request: servers, gateway, clients; s.

    ``others``: the share of two cores that other programs took.
    """

    rate: float
    servers: float
    gateway: float
    clients: float
    others: float


def turn(before: front.Running, servers: list[Running], audio: bytes) -> Turn:
    """As many requests as ``servers`` get in a turn, through the gateway that is before them."""
    own_pids = [server.process.pid for server in servers]
    assert before.watcher
    way_pids = [before.nginx.pid, before.watcher.pid]

    def times() -> tuple[float, ...]:
        return (
            time.perf_counter(),
            busy(),
            worked(*own_pids),
            worked(*way_pids),
            time.process_time(),
        )

    with httpx.Client(headers=before.headers, timeout=120) as client:

        def ask(_: int) -> None:
            answer = client.post(
                f"{before.url}/v1/audio/transcriptions",
                data={"model": NAME},
                files={"file": ("recording", audio)},
            )
            assert answer.status_code == 200, answer.text

        count = REQUESTS * len(servers)
        began = times()
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(ask, range(count)))
        after = times()
    seconds, all_, own, way, clients = (b - a for a, b in zip(began, after, strict=True))
    others = (all_ - own - way - clients) / seconds / 2
    return Turn(count / seconds, own / count, way / count, clients / count, others)


def show(what: str, turns: list[Turn]) -> None:
    """Print the medians."""
    rate, servers, way, clients, others = (
        statistics.median(getattr(each, name) for each in turns) for name in Turn.__annotations__
    )
    rates = sorted(each.rate for each in turns)
    print(
        f"{what}: {rate:.2f} requests a second ({rates[0]:.2f} to {rates[-1]:.2f}); processor time "
        f"of a request: server {servers * 1000:.1f} ms, gateway {way * 1000:.1f} ms, client "
        f"{clients * 1000:.1f} ms; others took {others * 100:.1f} % of the cores"
    )


def main(rounds: int) -> None:
    directory = Path(tempfile.mkdtemp())
    audio = wav(np.tile(np.append(speech(), np.zeros(1600)), REPEATED))
    cores = sorted(os.sched_getaffinity(0))[:2]
    with ExitStack() as stack:
        servers = []
        for core in cores:
            with on_core(core):
                servers.append(stack.enter_context(running(directory, key=front.KEY)))
        ports = [int(server.url.rpartition(":")[2]) for server in servers]
        gateways = []
        for number in (1, 2):
            (directory / str(number)).mkdir()
            made = front.gateway(directory / str(number), ports[:number])
            gateways.append(stack.enter_context(made))
        for server in servers:
            assert server.post(audio).status_code == 200
        found: tuple[list[Turn], list[Turn]] = ([], [])
        tried = 0
        while len(found[0]) < rounds and tried < rounds * TRIES:
            tried += 1
            pair = [turn(gateways[number - 1], servers[:number], audio) for number in (1, 2)]
            if all(each.others < OTHERS for each in pair):
                for turns, each in zip(found, pair, strict=True):
                    turns.append(each)
    seconds, size = len(audio) / 32000, len(audio) // 1000
    print(f"recordings of {seconds:.0f} s, {size} kB; {len(found[0])} of {tried} turns count")
    if not found[0]:
        sys.exit("This machine does other things: try again when it does not.")
    show("one server", found[0])
    show("two servers", found[1])
    times = sorted(two.rate / one.rate for one, two in zip(*found, strict=True))
    print(
        f"two carry {statistics.median(times):.2f} times the requests of one, in the median of the "
        f"turns ({times[0]:.2f} to {times[-1]:.2f})"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
