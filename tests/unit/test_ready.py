"""``/ready`` of an STT server: what a gateway goes by."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from stt_server.ready import with_ready


async def health(request: Request) -> JSONResponse:
    return JSONResponse({"status": "ok", "path": request.url.path})


def ask(draining: Path, path: str, requests: int = 0) -> httpx.Response:
    app = with_ready(Starlette(routes=[Route("/health", health)]), lambda: requests, draining)

    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://stt") as client:
            return await client.get(path)

    return asyncio.run(asked())


def test_it_is_the_server_s_health(tmp_path: Path) -> None:
    answer = ask(tmp_path / "draining", "/ready")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok", "path": "/health"})


def test_a_server_that_drains_says_how_much_there_is_left(tmp_path: Path) -> None:
    draining = tmp_path / "draining"
    draining.touch()
    answer = ask(draining, "/ready", requests=2)
    assert (answer.status_code, answer.json()) == (503, {"status": "draining", "requests": 2})
    assert ask(draining, "/health").status_code == 200  # who asks it directly is not affected


def test_the_questions_of_a_gateway_are_not_in_the_log(tmp_path: Path) -> None:
    ask(tmp_path / "draining", "/ready")
    log = logging.getLogger("uvicorn.access")
    lines = {
        path: log.makeRecord("", 20, "", 1, "", ("1.2.3.4:5", "GET", path, "1.1", 200), None)
        for path in ("/ready", "/v1/audio/transcriptions")
    }
    kept = {path: bool(log.filter(line)) for path, line in lines.items()}
    assert kept == {"/ready": False, "/v1/audio/transcriptions": True}
