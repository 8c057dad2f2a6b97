"""Vosk: Kaldi's models, small and only for CPUs."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Iterator
from importlib.metadata import version
from types import ModuleType
from typing import Any

import numpy as np

# Vosk imports it for subtitles, which this server makes by itself. There is no wheel of it, and its
# own build would run as root (overrides-vosk.txt).
sys.modules.setdefault("srt", ModuleType("srt"))
# ruff: noqa: E402  # for this

import vosk

from stt_server.audio import SAMPLING_RATE, Samples, StoppedError
from stt_server.recognizer import Info, Options, Segment, Word
from stt_server.settings import Settings, SettingsError

#: Samples that Kaldi gets at once.
CHUNK = SAMPLING_RATE // 4


class VoskRecognizer:
    """A directory with a Vosk model. It knows one language."""

    tasks = ("transcribe",)
    device, compute_type = "cpu", "float32"

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.version = version("vosk")
        self.languages = list(settings.languages) or None
        self.model: Any = None

    @property
    def loaded(self) -> bool:
        """Whether the model is in memory."""
        return self.model is not None

    def load(self) -> None:
        """Read the model."""
        vosk.SetLogLevel(-1)
        self.model = vosk.Model(str(self.settings.model_dir))

    def unload(self) -> None:
        """Free its memory."""
        self.model = None
        gc.collect()

    def transcribe(self, samples: Samples, options: Options) -> tuple[Iterator[Segment], Info]:
        """Transcribe; a segment ends where the speaker pauses."""
        language = self.languages[0] if self.languages else None
        return self._segments(samples, options), Info(len(samples) / SAMPLING_RATE, language)

    def _segments(self, samples: Samples, options: Options) -> Iterator[Segment]:
        recognizer = vosk.KaldiRecognizer(self.model, SAMPLING_RATE)
        recognizer.SetWords(True)
        pcm = (np.clip(samples, -1, 1) * 32767).astype("<i2")
        for first in range(0, len(pcm), CHUNK):
            if options.stopped():
                raise StoppedError
            if recognizer.AcceptWaveform(pcm[first : first + CHUNK].tobytes()):
                yield from _segment(json.loads(recognizer.Result()))
        yield from _segment(json.loads(recognizer.FinalResult()))


def _segment(said: Any) -> Iterator[Segment]:
    words = [Word(each["word"], each["start"], each["end"]) for each in said.get("result", [])]
    if words:
        yield Segment(words[0].start, words[-1].end, f" {said['text']}", words)


def create(settings: Settings) -> VoskRecognizer:
    """The recognizer, not loaded yet.

    Raises:
        SettingsError: a file of the model is missing, or the device or compute type is another.
    """
    for name, value, only in (
        ("STT_DEVICE", settings.device, "cpu"),
        ("STT_COMPUTE_TYPE", settings.compute_type, "float32"),
    ):
        if value != only:
            raise SettingsError(f"{name} is {value!r}, and Vosk has only {only}")
    settings.require("am/final.mdl", "conf/mfcc.conf")
    return VoskRecognizer(settings)
