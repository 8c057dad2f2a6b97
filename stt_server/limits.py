"""The limits of ``stt:limits`` before another server: one that has none, such as Speaches.

It takes a whole recording at once. So the limits hold while it is received and decoded, and long
ones take turns; this project's own server (``service.py``) does better with slices.
"""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, BinaryIO, TypeVar

import av.error
import numpy as np
from starlette.datastructures import Headers
from starlette.formparsers import MultiPartException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stt_server.admission import Admission
from stt_server.audio import SAMPLING_RATE, AudioError, Samples, StoppedError, slices
from stt_server.guard import RequestError, UploadLimit, announced, require_form, response_of

#: Long recordings that are in memory at the same time; four hours take 0.9 GB, and copies.
AT_ONCE = 2
#: Seconds after which one that waits for its turn looks whether its client is still there.
_LOOK = 0.5

_Item = TypeVar("_Item")


class Request:
    """A request on its way; what it holds is given back at its end."""

    def __init__(self) -> None:
        self.left = False
        self.error: RequestError | None = None
        self.has_turn = False


#: The request that a thread works for.
_REQUEST: ContextVar[Request] = ContextVar("request")


class Limits:
    """The limits, as this project's own server has them (``Settings``)."""

    def __init__(self, audio_minutes: int, upload_mb: int, waiting: int) -> None:
        self.minutes = audio_minutes
        self._admission = Admission(waiting, upload_mb)
        self._upload = UploadLimit(upload_mb)
        self._turns = threading.Semaphore(AT_ONCE)

    @property
    def requests(self) -> int:
        """The requests that are being received or answered."""
        return self._admission.requests

    def before(self, app: ASGIApp) -> ASGIApp:
        """An application whose requests with a body have these limits.

        What has none, such as loading and unloading, takes no place in the queue.
        """

        async def limited(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http" or not _has_body(scope):
                await app(scope, receive, send)
                return
            headers = dict(scope["headers"])
            try:
                self._upload.check(headers)
                if scope["method"] == "POST" and _takes_form(scope["path"]):
                    # The first of two, as whoever parses the form takes it.
                    require_form(Headers(scope=scope).get("content-type", ""))
                counted, size = self._upload.counted(receive), announced(headers)
                # A chat may be answered for minutes: it takes a place only while it is sent.
                whole = scope["path"].startswith("/v1/audio/")
                with self._admission.admit(counted, size, until_answered=whole) as admitted:
                    await self._answer(app, scope, admitted, send)
            except RequestError as error:
                await response_of(error)(scope, receive, send)

        return limited

    async def _answer(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Have it answered; what was refused meanwhile has an answer of ours.

        Raises:
            RequestError: the request is refused, and nothing was sent yet.
        """
        request, begun = Request(), False
        token = _REQUEST.set(request)
        body = Body(receive, request)

        async def send_unless_refused(message: Message) -> None:
            nonlocal begun
            if request.error is None or begun:
                begun = True
                await send(message)

        try:
            await app(scope, body.receive, send_unless_refused)
        except Exception:
            if request.error is None:
                raise
        finally:
            body.close()
            _REQUEST.reset(token)
            if request.has_turn:
                self._turns.release()
        if request.error is not None and not begun:
            raise request.error

    def decode(self, file: BinaryIO, sampling_rate: int = SAMPLING_RATE) -> Samples:
        """The samples of a file, as ``faster_whisper.decode_audio`` has them.

        Raises:
            av.error.InvalidDataError: it is refused, or nobody waits for it any more; a server
                takes that for the file's fault.
        """
        if sampling_rate != SAMPLING_RATE:
            raise RuntimeError(f"the limits are for {SAMPLING_RATE} Hz, not {sampling_rate}")
        request = _REQUEST.get()
        found = np.empty(0, np.float32)
        try:
            for part in slices(file, self.minutes, lambda: request.left):
                if not part.last:
                    self._wait_for_turn(request)
                size = len(found)
                found.resize(size + len(part.samples), refcheck=False)
                found[size:] = part.samples
        except (AudioError, StoppedError) as error:
            if isinstance(error, AudioError):
                request.error = RequestError(400, str(error), "file")
            raise av.error.InvalidDataError(errno.EINVAL, str(error)) from error
        return found

    def _wait_for_turn(self, request: Request) -> None:
        while not request.has_turn:
            if request.left:
                raise StoppedError
            request.has_turn = self._turns.acquire(timeout=_LOOK)


def _has_body(scope: Scope) -> bool:
    """Whether a request may have one: HTTP requires a header that says so (RFC 9112, 6)."""
    names = {name for name, value in scope["headers"] if value != b"0"}
    audio = scope["path"].startswith("/v1/audio/")
    return audio or bool(names & {b"content-length", b"transfer-encoding"})


def _takes_form(path: str) -> bool:
    return path.startswith("/v1/audio/") and path != "/v1/audio/speech"


class Body:
    """A request's body, as an application receives it; then whether the client has left."""

    def __init__(self, receive: Receive, request: Request) -> None:
        self._receive, self._request = receive, request
        self._watch: asyncio.Task[Message] | None = None

    async def receive(self) -> Message:
        """The next message.

        Raises:
            MultiPartException: the request is refused; whoever parses it closes its files then.
        """
        if self._watch is not None:
            return await asyncio.shield(self._watch)
        try:
            message = await self._receive()
        except RequestError as error:
            self._request.error = error
            raise MultiPartException(error.message) from error
        if message["type"] == "http.disconnect":
            self._request.left = True
        elif not message.get("more_body", False):
            self._watch = asyncio.create_task(self._until_left())
        return message

    async def _until_left(self) -> Message:
        while (message := await self._receive())["type"] != "http.disconnect":
            pass
        self._request.left = True
        return message

    def close(self) -> None:
        """Watch no longer."""
        if self._watch is not None:
            self._watch.cancel()


def until_left(transcribe: Callable[..., Any]) -> Callable[..., Any]:
    """``WhisperModel.transcribe``, which ends between two segments once the client has left."""

    def transcribe_until_left(*args: Any, **kwargs: Any) -> Any:
        segments, info = transcribe(*args, **kwargs)
        with suppress(LookupError):
            return _while_wanted(segments, _REQUEST.get()), info
        return segments, info

    return transcribe_until_left


def _while_wanted(items: Iterator[_Item], request: Request) -> Iterator[_Item]:
    for item in items:
        if request.left:
            return
        yield item
