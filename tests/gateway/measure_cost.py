"""``python -m tests.gateway.measure_cost [REQUESTS]``: what the way through the gateway costs.

The same recording goes to a server directly and through the gateway, by turns, with the tiny model;
then a long one, and a body of 20 MB to a server that only answers with its hash.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from tests.gateway.gateway import KEY, gateway, stand_ins
from tests.server.server import SPEECH, Running, running, speech, wav


def times(ask: dict[str, Callable[[], httpx.Response]], requests: int) -> dict[str, list[float]]:
    """How long each way takes; s."""
    found: dict[str, list[float]] = {name: [] for name in ask}
    for number in range(requests):
        for name in sorted(ask, reverse=number % 2 == 1):
            began = time.perf_counter()
            answer = ask[name]()
            found[name].append(time.perf_counter() - began)
            assert answer.status_code == 200, answer.text
    return {name: sorted(each) for name, each in found.items()}


def show(what: str, found: dict[str, list[float]]) -> None:
    direct, through = (statistics.median(found[name]) for name in ("direct", "through"))
    more = (through / direct - 1) * 100
    print(
        f"{what}: {len(found['direct'])} each, median {direct * 1000:.1f} ms directly, "
        f"{through * 1000:.1f} ms through the gateway: {more:+.1f} %"
    )


def main(requests: int) -> None:
    directory = Path(tempfile.mkdtemp())
    with running(directory, key=KEY) as server:
        port = int(server.url.rpartition(":")[2])
        with gateway(directory, [port], upload_mb=500) as front:
            behind = Running(front.url, server.process, server.log_file, KEY)
            long = wav(np.tile(np.append(speech(), np.zeros(1600)), 60))
            for what, audio in (("three words", SPEECH), (f"{len(long) >> 20} MB of words", long)):
                asked: Any = {
                    "direct": lambda audio=audio: server.post(audio),
                    "through": lambda audio=audio: behind.post(audio),
                }
                times(asked, 3)
                show(what, times(asked, requests if audio is SPEECH else requests // 10))
    other = directory / "other"
    other.mkdir()
    with stand_ins(other, 1) as (one,), gateway(other, [one.port]) as front:
        body = random.Random(1).randbytes(20_000_000)
        url = f"http://127.0.0.1:{one.port}/v1/audio/transcriptions"
        asked = {
            "direct": lambda: httpx.post(url, content=body, timeout=60),
            "through": lambda: front.post(body),
        }
        times(asked, 3)
        show("20 MB and no work but its hash", times(asked, requests // 10))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
