"""Speaches, with the language of stt:language where a request names none.

Speaches itself has no such setting. It hands every request's language to faster-whisper, and there
None means "detect": this is where the default goes in. It also logs what a model was really loaded as.
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

from speaches.main import create_app  # noqa: E402  # after the default is in place

__all__ = ["create_app"]
