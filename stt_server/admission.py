"""How many requests are taken in, how fast their bodies come, and what these take of the disk."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
from starlette.types import Message, Receive

from stt_server.guard import RequestError

#: Bytes of an upload that stay in memory; a dictation takes less (Starlette's own limit).
_IN_MEMORY = 1 << 20
#: All uploads together may take as much of the disk as this many of the largest.
_LARGEST = 2
#: Seconds that a body may take in any case, and bytes a second that it has to bring after them.
_GRACE, _PACE = 30, 32 << 10

_FULL = "Too many requests are waiting already. Try again."
_NO_ROOM = "The uploads that are waiting leave no room for this one. Try again."
_SLOW = "The upload is too slow."


class Admission:
    """The requests that are being received, wait, or are transcribed."""

    def __init__(self, waiting: int, upload_mb: int) -> None:
        self.most = waiting + 1
        self.room = _LARGEST * upload_mb << 20
        self.requests = 0
        self.kept = 0

    @contextmanager
    def admit(
        self, receive: Receive, length: int, *, until_answered: bool = True
    ) -> Iterator[Receive]:
        """Take a request in, of which ``length`` bytes are announced; how its body is received.

        Without ``until_answered`` it gives its place back once its body is there.

        Raises:
            RequestError: there are as many as may wait, or no room for its body.
        """
        if self.requests >= self.most:
            raise RequestError(429, _FULL)
        began, received, kept, whole, left = time.monotonic(), 0, 0, False, False

        def leave() -> None:
            nonlocal left
            if not left:
                self.requests -= 1
                self.kept -= kept
            left = True

        def keep(size: int) -> None:
            nonlocal kept
            more = size - kept if size > _IN_MEMORY else 0
            if more <= 0:
                return
            if self.kept + more > self.room:
                raise RequestError(429, _NO_ROOM)
            self.kept += more
            kept += more

        async def receive_in_time() -> Message:
            nonlocal received, whole
            if whole:
                return await receive()
            seconds = began + _GRACE + received / _PACE - time.monotonic()
            try:
                with anyio.fail_after(max(seconds, 0)):
                    message = await receive()
            except TimeoutError as error:
                raise RequestError(408, _SLOW) from error
            received += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            keep(received)
            if whole and not until_answered:
                leave()
            return message

        keep(length)
        self.requests += 1
        try:
            yield receive_in_time
        finally:
            leave()
