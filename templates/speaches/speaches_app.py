"""Speaches, with the language of stt:language where a request names none.

Speaches itself has no such setting. It hands every request's language to faster-whisper, and there
None means "detect": this is where the default goes in. It also logs what a model was loaded as.
"""

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


def create_app():
    """Speaches, with HTTP's own status for a missing key: it answers 403, and clients expect 401."""
    app = main.create_app()

    async def with_status(scope, receive, send):
        async def send_status(message):
            if message["type"] == "http.response.start" and message["status"] == 403:
                message["status"] = 401
                message["headers"] = [*message["headers"], (b"www-authenticate", b"Bearer")]
            await send(message)

        await app(scope, receive, send_status)

    return with_status
