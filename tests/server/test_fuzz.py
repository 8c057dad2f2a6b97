"""Requests at random: no answer is an error of the server's own, and its memory stays.

Other requests in each run (``tests/seeds.py``). ``STT_FUZZ_SECONDS`` is how long it takes
(`make test-faults`: 600).
"""

from __future__ import annotations

import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.seeds import FUZZ_SEED
from tests.server import attacks
from tests.server.fuzz import Fuzz
from tests.server.server import KEY, Running, running

pytestmark = pytest.mark.seldom

SECONDS = float(os.environ.get("STT_FUZZ_SECONDS") or 4)
CLIENTS = 4
#: MB by which the server may grow, once it has met each kind of request.
GROWTH = 20
#: Requests that each client sends at least, however slow the machine is.
LEAST = 50


def test_no_request_breaks_the_server(tmp_path: Path) -> None:
    with running(tmp_path, key=KEY, STT_AUDIO_MINUTES="10", STT_UPLOAD_MB="5") as server:
        found: Counter[int] = Counter()
        # What it takes for long recordings and for each container, it takes once.
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(server.post, [attacks.talk(2.2)] * 2 + [attacks.silence(5)] * 2))
            list(pool.map(server.post, Fuzz(FUZZ_SEED).files * 2))
        warm = min(SECONDS / 2, 60)
        found += fuzz(server, warm, 0)
        before = attacks.memory(server)
        found += fuzz(server, SECONDS - warm, CLIENTS)
        grown = attacks.memory(server) - before
        print(f"answers: {dict(sorted(found.items()))}; {grown:.1f} MB more")
        assert server.post().json() == {"text": "one two three"}
        failed = [line for line in server.log.splitlines() if "Traceback" in line or '" 5' in line]
        assert server.process.poll() is None
        assert not any(status >= 500 for status in found), (FUZZ_SEED, found, server.log[-3000:])
        told = server.log.partition("Traceback")[2][:6000] or failed
        assert not failed, f"seed {FUZZ_SEED}: {told}"
        assert {200, 400} <= set(found), found
        assert grown < GROWTH, f"seed {FUZZ_SEED}: {grown} MB more"


def fuzz(server: Running, seconds: float, first: int) -> Counter[int]:
    """Several clients at once for some time, at least; how often each status came."""
    every = [Fuzz(FUZZ_SEED + number) for number in range(first, first + CLIENTS)]
    end = time.monotonic() + seconds

    def client(made: Fuzz) -> Counter[int]:
        statuses = Counter[int]()
        while time.monotonic() < end or statuses.total() < LEAST:
            statuses[made.send(server)] += 1
        return statuses

    with ThreadPoolExecutor(CLIENTS) as pool:
        return sum(pool.map(client, every), Counter[int]())
