"""Speaches, with the language of stt:language where a request names none.

Speaches itself has no such setting. It hands every request's language to faster-whisper, and there
None means "detect": this is where the default goes in. It also logs what a model was loaded as.
"""

import asyncio
import contextlib
import functools
import logging
import os

import faster_whisper

LANGUAGE = os.environ["INCUS_STT_LANGUAGE"] or None


def _with_language(transcribe):
    @functools.wraps(transcribe)
    def transcribe_in_language(*args, **kwargs):
        kwargs["language"] = kwargs.get("language") or LANGUAGE
        return transcribe(*args, **kwargs)

    return transcribe_in_language


def _logged(init):
    @functools.wraps(init)
    def init_and_log(self, name, *args, **kwargs):
        init(self, name, *args, **kwargs)
        logging.getLogger("speaches.incus_stt").info(
            "loaded %s: device=%s compute_type=%s", name, self.model.device, self.model.compute_type
        )

    return init_and_log


for _pipeline in (faster_whisper.WhisperModel, faster_whisper.BatchedInferencePipeline):
    _pipeline.transcribe = _with_language(_pipeline.transcribe)
faster_whisper.WhisperModel.__init__ = _logged(faster_whisper.WhisperModel.__init__)

from speaches import main  # noqa: E402  # after the default is in place

#: This line of Speaches stands in the log for every good answer, as an error.
logging.getLogger("speaches.routers.stt").addFilter(
    lambda record: not record.getMessage().startswith("Unexpected streaming transcription response")
)


class Gate:
    """An unload waits for the transcriptions that run, and new ones wait for it.

    Speaches refuses to unload a model that is in use, and loses track of it all the same.
    """

    def __init__(self):
        self.running = 0
        self.idle = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def pass_by(self, scope):
        path = scope.get("path", "")
        if scope["type"] == "http" and path.startswith("/v1/audio/"):
            async with self.idle:
                self.running += 1
            try:
                yield
            finally:
                # A client that leaves cancels this task: the count must not wait for a lock.
                self.running -= 1
                asyncio.get_running_loop().create_task(self._tell())
        elif scope.get("method") == "DELETE" and path.startswith("/api/ps/"):
            async with self.idle:
                await self.idle.wait_for(lambda: not self.running)
                yield
        else:
            yield

    async def _tell(self):
        async with self.idle:
            self.idle.notify_all()


def create_app():
    """Speaches, with HTTP's own status for a missing key: it answers 403, and clients expect 401."""
    app = main.create_app()

    gate = Gate()

    async def with_status(scope, receive, send):
        async def send_status(message):
            if message["type"] == "http.response.start" and message["status"] == 403:
                message["status"] = 401
                message["headers"] = [*message["headers"], (b"www-authenticate", b"Bearer")]
            await send(message)

        async with gate.pass_by(scope):
            await app(scope, receive, send_status)

    return with_status
