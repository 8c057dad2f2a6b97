"""The lines of `make status`."""

from __future__ import annotations

from typing import Any

import pytest

from operations.status import age, lines, works

SERVICE = {
    "unit": "speaches.service",
    "state": "active",
    "seconds": 93_784,
    "port": 8000,
    "memory": 2 * 2**30,
    "model": "large-v3-turbo",
    "device": "cuda",
    "compute_type": "float16",
    "requests": 152,
    "failed": 2,
    "restarts": 0,
    "last_error": "2026-11-26T10:00:00 ERROR out of memory",
}


def answers(**changes: Any) -> dict[str, Any]:
    services = {"stt_server/service": {**SERVICE, **changes}}
    return {"ai-tools/gpu-server": {"address": "10.120.0.1", "services": services}}


def test_a_service_that_runs() -> None:
    assert lines(answers(), colour=False) == [
        "ai-tools/gpu-server  10.120.0.1",
        "  speaches: running for 1 d 2 h, port 8000, 2.0 GiB of memory, large-v3-turbo in float16 "
        "on cuda, 152 requests since its start, 2 of them failed",
        "    last error: 2026-11-26T10:00:00 ERROR out of memory",
    ]
    assert works(answers())


def test_requests_by_client() -> None:
    count = {"phone": {"requests": 40, "failed": 1}, "laptop": {"requests": 12, "failed": 0}}
    assert "    by client: laptop 12, phone 40 (1 failed), others 100" in lines(
        answers(clients=count), colour=False
    )
    all_known = answers(clients=count, requests=52)
    assert "    by client: laptop 12, phone 40 (1 failed)" in lines(all_known, colour=False)
    assert not any("by client" in line for line in lines(answers(clients={}), colour=False))


def test_one_that_does_not() -> None:
    failed = answers(state="failed", seconds=None, memory=None, restarts=4, requests=0, model="")
    assert lines(failed, colour=False)[1] == (
        "  speaches: failed, port 8000, started again 4 times by systemd"
    )
    assert "\x1b[31mfailed\x1b[0m" in lines(failed, colour=True)[1]
    assert not works(failed)


def test_a_machine_that_does_not_answer() -> None:
    silent = {"a/m": {"address": "10.0.0.1", "services": {}, "error": "Instance is not running"}}
    assert lines(silent, colour=False)[1] == "  does not answer: Instance is not running"
    assert not works(silent)
    empty = {"a/m": {"address": "10.0.0.1", "services": {}}}
    assert lines(empty, colour=False)[1] == "  no services" and works(empty)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (3600, "1 h 0 min"), (200_000, "2 d 7 h")],
)
def test_ages(seconds: int, text: str) -> None:
    assert age(seconds) == text


def test_a_gateway() -> None:
    server = {"name": "fast", "url": "http://10.0.0.1:8000", "requests": 9, "failed": 0, "full": 2}
    gone = {**server, "name": "slow", "failed": 3, "full": 0, "why": "answers 503"}
    gateway: dict[str, Any] = {
        "totals": {"requests": 12, "retried": 3, "refused": 1, "failed": 0, "seconds": 18.0},
        "full": False,
        "servers": [
            {**server, "serving": True, "for": 61, "why": ""},
            {**gone, "serving": False, "for": 5},
        ],
    }
    shown = lines(answers(gateway=gateway), colour=False)
    assert shown[2:5] == [
        "    12 requests of clients, 1.5 s each, 3 given to another server, 1 refused: too many "
        "waiting",
        "    fast (http://10.0.0.1:8000): gets requests for 1 min 1 s, 9 tried, 2 too full for",
        "    slow (http://10.0.0.1:8000): gets none for 5 s (answers 503), 9 tried, 3 failed",
    ]
    assert works(answers(gateway=gateway))
    gateway["servers"][0]["serving"] = False
    assert not works(answers(gateway=gateway))
    full = {**gateway, "full": True}
    assert "no room for another large body" in lines(answers(gateway=full), colour=False)[2]
    assert works(answers(gateway=None)), "it has not said anything yet"
