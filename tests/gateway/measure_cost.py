"""``python -m tests.gateway.measure_cost [REQUESTS]``: what the way through the gateway costs.

The same recording goes to a server directly and through the gateway, in turn, with the tiny model;
then a long one, and a body of 20 MB to a server that only answers with its hash. Last, three words
go through it by HTTP and by HTTPS.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from roles.stt_gateway.machine.authority import Authority
from tests.gateway.gateway import KEY, gateway, https_gateway, stand_ins
from tests.gateway.gateway import Running as Front
from tests.server.server import NAME, SPEECH, Running, running, speech, wav


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
    """Print the medians, and how much more than the first way each takes."""
    medians = {name: statistics.median(each) for name, each in found.items()}
    first = next(iter(medians.values()))
    ways = ", ".join(
        f"{name} {each * 1000:.1f} ms ({(each / first - 1) * 100:+.1f} %)"
        for name, each in medians.items()
    )
    print(f"{what}: {len(next(iter(found.values())))} each, median {ways}")


def encrypted(directory: Path, requests: int) -> None:
    """What HTTPS costs, with a new connection for each request and with one for all."""
    (directory / "authority").mkdir(mode=0o700)
    authority = Authority(directory / "authority", "measured", ["127.0.0.1"])
    for place in ("plain", "https"):
        (directory / place).mkdir()
    with ExitStack() as stack:
        server = stack.enter_context(running(directory, key=KEY))
        ports = [int(server.url.rpartition(":")[2])]
        plain = stack.enter_context(gateway(directory / "plain", ports))
        https = stack.enter_context(https_gateway(directory / "https", ports, authority))
        trust = https.verify
        kept = stack.enter_context(httpx.Client(verify=trust))

        def ask(front: Front, client: httpx.Client | None = None) -> httpx.Response:
            post = client.post if client else partial(httpx.post, verify=trust)
            return post(
                f"{front.url}/v1/audio/transcriptions",
                headers=front.headers,
                data={"model": NAME},
                files={"file": ("recording", SPEECH.read_bytes())},
                timeout=60,
            )

        asked = {
            "HTTP": lambda: ask(plain),
            "HTTPS": lambda: ask(https),
            "HTTPS on one connection": lambda: ask(https, kept),
        }
        times(asked, 3)
        show("three words through the gateway", times(asked, requests))


def ways(directory: Path, requests: int) -> None:
    """What the gateway costs beside the server itself."""
    with running(directory, key=KEY) as server:
        port = int(server.url.rpartition(":")[2])
        with gateway(directory, [port], upload_mb=500) as front:
            behind = Running(front.url, server.process, server.log_file, KEY)
            long = wav(np.tile(np.append(speech(), np.zeros(1600)), 60))
            for what, audio in (("three words", SPEECH), (f"{len(long) >> 20} MB of words", long)):
                asked: Any = {
                    "directly": lambda audio=audio: server.post(audio),
                    "through the gateway": lambda audio=audio: behind.post(audio),
                }
                times(asked, 3)
                show(what, times(asked, requests if audio is SPEECH else requests // 10))
    other = directory / "other"
    other.mkdir()
    with stand_ins(other, 1) as (one,), gateway(other, [one.port]) as front:
        body = random.Random(1).randbytes(20_000_000)
        url = f"http://127.0.0.1:{one.port}/v1/audio/transcriptions"
        asked = {
            "directly": lambda: httpx.post(url, content=body, timeout=60),
            "through the gateway": lambda: front.post(body),
        }
        times(asked, 3)
        show("20 MB and no work but its hash", times(asked, requests // 10))


def main(requests: int) -> None:
    """Measure all."""
    directory = Path(tempfile.mkdtemp())
    ways(directory, requests)
    encrypted(directory, requests)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
