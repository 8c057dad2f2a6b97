"""``/ready``: whether a gateway should send requests here.

It is ``/health`` as long as the server takes part. While ``up`` changes it, it is 503 and says how
many requests there still are, so that the gateway asks others and the change waits for these.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

PATH = "/ready"
#: It is there while the server is not to get requests (``agent.drain``).
DRAINING = Path("/run/incus-stt-draining")


def with_ready(app: ASGIApp, requests: Callable[[], int], draining: Path = DRAINING) -> ASGIApp:
    """An application that has ``/ready`` too; ``requests`` are being received or answered."""
    # A gateway asks every second.
    logging.getLogger("uvicorn.access").addFilter(_is_no_question)

    async def ready(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != PATH:
            await app(scope, receive, send)
        elif draining.exists():
            said = {"status": "draining", "requests": requests()}
            await JSONResponse(said, 503)(scope, receive, send)
        else:
            await app({**scope, "path": "/health", "raw_path": b"/health"}, receive, send)

    return ready


def _is_no_question(record: logging.LogRecord) -> bool:
    """Whether a line of the log is about something else; its third value is the path."""
    args = record.args
    return not (isinstance(args, tuple) and len(args) > 2 and args[2] == PATH)
