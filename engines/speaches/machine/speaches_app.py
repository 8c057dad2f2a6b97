"""Speaches, with the language of stt:language where a request names none.

Speaches itself has no such setting. It hands every request's language to faster-whisper, and there
None means "detect": this is where the default goes in. It also logs what a model was loaded as.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before ONNX Runtime is loaded

import faster_whisper

# ASGI's own shapes; what Speaches is built on has them under names that change.
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LANGUAGE = os.environ["INCUS_STT_LANGUAGE"] or None


def _with_language(transcribe: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(transcribe)
    def transcribe_in_language(*args: Any, **kwargs: Any) -> Any:
        kwargs["language"] = kwargs.get("language") or LANGUAGE
        return transcribe(*args, **kwargs)

    return transcribe_in_language


def _logged(init: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(init)
    def init_and_log(self: Any, name: str, *args: Any, **kwargs: Any) -> None:
        init(self, name, *args, **kwargs)
        logging.getLogger("speaches.incus_stt").info(
            "loaded %s: device=%s compute_type=%s", name, self.model.device, self.model.compute_type
        )

    return init_and_log


for _pipeline in (faster_whisper.WhisperModel, faster_whisper.BatchedInferencePipeline):
    _pipeline.transcribe = _with_language(_pipeline.transcribe)
faster_whisper.WhisperModel.__init__ = _logged(faster_whisper.WhisperModel.__init__)

from speaches import main  # noqa: E402  # after the default is in place

#: Speaches logs this line as an error for every good answer.
logging.getLogger("speaches.routers.stt").addFilter(
    lambda record: not record.getMessage().startswith("Unexpected streaming transcription response")
)


class Gate:
    """An unload waits for the transcriptions that run, and new ones wait for it.

    Speaches refuses to unload a model that is in use, and loses track of it all the same.
    """

    def __init__(self) -> None:
        self.running = 0
        self.idle = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def pass_by(self, scope: Scope) -> AsyncIterator[None]:
        """Let a request through when it is its time."""
        path = scope.get("path", "")
        if scope["type"] == "http" and path.startswith("/v1/audio/"):
            async with self.idle:
                self.running += 1
            try:
                yield
            finally:
                # A client that leaves cancels this task: the count must not wait for a lock.
                self.running -= 1
                task = asyncio.get_running_loop().create_task(self._tell())
                self._tasks.add(task)  # the loop itself keeps only a weak reference
                task.add_done_callback(self._tasks.discard)
        elif scope.get("method") == "DELETE" and path.startswith("/api/ps/"):
            async with self.idle:
                await self.idle.wait_for(lambda: not self.running)
                yield
        else:
            yield

    async def _tell(self) -> None:
        async with self.idle:
            self.idle.notify_all()


def create_app() -> App:
    """Speaches, with HTTP's own status for a missing key: clients expect 401, and it says 403."""
    app: App = main.create_app()
    gate = Gate()

    async def with_status(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_status(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 403:
                message["status"] = 401
                message["headers"] = [*message["headers"], (b"www-authenticate", b"Bearer")]
            await send(message)

        async with gate.pass_by(scope):
            await app(scope, receive, send_status)

    return with_status
