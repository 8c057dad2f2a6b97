"""One question to a server: its ``/ready``, or where it has none, its health path."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from dataclasses import dataclass
from enum import Enum
from typing import Any

from .settings import Server

#: Seconds that an answer may take.
SECONDS = 2.0
#: Seconds that a server may work on one part of a recording, which has two minutes at most: after
#: that its engine hangs. A machine that needs as long could transcribe nothing in time.
STALL_SECONDS = 600
#: What servers say to ``/ready`` that are not this project's: an engine of the operator's own.
_NOT_KNOWN = (401, 403, 404, 405)
#: What is asked with the key, and what servers say to one that they do not accept.
_WITH_KEY, _KEY_REFUSED = "/v1/models", (401, 403)
#: Bytes of an answer that are read.
_LIMIT = 1 << 16


class Kind(Enum):
    """What an answer says."""

    GOOD = "good"
    #: It answers, and not with 200: it loads, or has no memory.
    NOT_READY = "not ready"
    #: `up` changes it, and waits for the requests that it still has.
    DRAINING = "draining"
    REFUSED = "refused"
    SILENT = "silent"
    #: It answers, and its engine has not moved for ``STALL_SECONDS``.
    STALLED = "stalled"


@dataclass(frozen=True)
class Answer:
    """An answer, and in words what is wrong."""

    kind: Kind
    why: str = ""


async def ask(server: Server, seconds: float = SECONDS) -> Answer:
    """What a server says of itself now."""
    try:
        async with asyncio.timeout(seconds):
            status, body = await _get(server, "/ready")
            if status in _NOT_KNOWN:
                status, body = await _get(server, server.health)
            return _judged(status, body)
    except TimeoutError:
        return Answer(Kind.SILENT, f"does not answer within {seconds:g} s")
    except (ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return Answer(Kind.NOT_READY, "answers no HTTP")
    except OSError as error:
        why = (os.strerror(error.errno) if error.errno else str(error)).lower()
        return Answer(Kind.REFUSED, f"cannot be reached: {why}")


async def accepts(server: Server, authorization: str, seconds: float = SECONDS) -> bool | None:
    """Whether a server accepts the key of a header; None: it did not say."""
    try:
        async with asyncio.timeout(seconds):
            status, _ = await _get(server, _WITH_KEY, authorization)
    except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return None
    # Other errors are not about the key; an engine of the operator's own may not know the path.
    return None if status >= 500 else status not in _KEY_REFUSED


async def _get(server: Server, path: str, authorization: str = "") -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection(server.address, server.port, limit=_LIMIT)
    try:
        head = f"GET {path} HTTP/1.1\r\nHost: {server.place}\r\nConnection: close\r\n"
        header = f"{authorization}\r\n" if authorization else ""
        writer.write(f"{head}{header}\r\n".encode())
        status = (await reader.readline()).split(b" ", 2)
        if len(status) < 2 or not status[0].startswith(b"HTTP/"):
            raise ValueError
        await reader.readuntil(b"\r\n\r\n")
        return int(status[1]), await reader.read(_LIMIT)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            writer.transport.abort()


def _judged(status: int, body: bytes) -> Answer:
    said: Any = None
    with contextlib.suppress(ValueError):
        said = json.loads(body)
    if status != 200:
        if isinstance(said, dict) and said.get("status") == "draining":
            return Answer(Kind.DRAINING, "is being changed")
        return Answer(Kind.NOT_READY, f"answers {status}")
    working = said.get("working") if isinstance(said, dict) else None
    if isinstance(working, (int, float)) and working > STALL_SECONDS:
        return Answer(Kind.STALLED, f"has worked on one part of a recording for {working:.0f} s")
    return Answer(Kind.GOOD)
