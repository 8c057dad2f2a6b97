"""Whisper, by faster-whisper on CTranslate2."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib.metadata import version

import ctranslate2
import faster_whisper
import numpy as np
from faster_whisper.transcribe import Segment as WhisperSegment

from stt_server.audio import SAMPLING_RATE, Samples, StoppedError
from stt_server.recognizer import Info, Options, Segment, Word
from stt_server.settings import Settings, SettingsError

#: What Whisper tries in turn where its own confidence is low; the meaning of OpenAI's 0.
TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
#: OpenAI's names of what Whisper says of a segment.
DETAILS = ("seek", "tokens", "temperature", "avg_logprob", "compression_ratio", "no_speech_prob")
#: Seconds.
_UNLOAD_DEADLINE = 10


class _Temperatures(list[float]):
    """The temperatures of a request: each is another try, and none is made for nobody."""

    def __init__(self, values: tuple[float, ...], stopped: Callable[[], bool]) -> None:
        super().__init__(values)
        self.stopped = stopped

    def __iter__(self) -> Iterator[float]:
        """Each temperature, as long as somebody waits."""
        for value in super().__iter__():
            if self.stopped():
                raise StoppedError
            yield value


class WhisperRecognizer:
    """A CTranslate2 model."""

    tasks = ("transcribe", "translate")

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.version = version("faster-whisper")
        self.model: faster_whisper.WhisperModel | None = None
        self.device = self.compute_type = ""
        self.languages: list[str] = ["en"]

    @property
    def loaded(self) -> bool:
        """Whether the model is on its device."""
        return self.model is not None and bool(self.model.model.model_is_loaded)

    def load(self) -> None:
        """Load from the disk, or bring back what ``unload`` left in the machine's memory."""
        if self.model is not None:
            self.model.model.load_model()
            return
        settings = self.settings
        model = faster_whisper.WhisperModel(
            str(settings.model_dir),
            device=settings.device,
            compute_type=settings.compute_type,
            # CTranslate2's own 0 is four at most.
            cpu_threads=settings.cpu_threads or len(os.sched_getaffinity(0)),
            local_files_only=True,
        )
        if settings.device == "cuda":
            # cuBLAS is loaded at the first use: where it is missing, now is the time to say so.
            list(model.transcribe(np.zeros(SAMPLING_RATE, np.float32), language="en")[0])
        self.device, self.compute_type = model.model.device, model.model.compute_type
        if model.model.is_multilingual:
            # Older models lack the newest language.
            token = model.hf_tokenizer.token_to_id
            self.languages = [
                code for code in model.supported_languages if token(f"<|{code}|>") is not None
            ]
        self.model = model

    def unload(self) -> None:
        """Free the device; a card's model stays in the machine's memory, to be back at once.

        CTranslate2 does nothing, and does not say so, as long as a thread of its own has not
        quite ended the last transcription.
        """
        if self.model is None:
            return
        end = time.monotonic() + _UNLOAD_DEADLINE
        self.model.model.unload_model(to_cpu=self.device == "cuda")
        while self.loaded:
            if time.monotonic() > end:
                raise TimeoutError(f"CTranslate2 still uses it after {_UNLOAD_DEADLINE} s")
            time.sleep(0.01)
            self.model.model.unload_model(to_cpu=self.device == "cuda")

    def transcribe(self, samples: Samples, options: Options) -> tuple[Iterator[Segment], Info]:
        """Transcribe; segments come as they are decoded."""
        if self.model is None:
            raise RuntimeError("the model is not loaded")
        found, info = self.model.transcribe(
            samples,
            task=options.task,
            language=options.language,
            initial_prompt=options.prompt,
            temperature=_Temperatures(
                (options.temperature,) if options.temperature else TEMPERATURES, options.stopped
            ),
            word_timestamps=options.words,
            # Without it, Whisper finds words in silence, hum and noise.
            vad_filter=True,
        )
        return map(_segment, found), Info(info.duration, info.language, info.language_probability)


def _segment(found: WhisperSegment) -> Segment:
    words = [Word(each.word.strip(), each.start, each.end) for each in found.words or ()]
    said = asdict(found)
    details = {name: said[name] for name in DETAILS}
    return Segment(found.start, found.end, found.text, words, details)


def create(settings: Settings) -> WhisperRecognizer:
    """The recognizer, not loaded yet.

    Raises:
        SettingsError: a file of the model is missing, or the device cannot run the compute type.
    """
    # Without tokenizer.json, faster-whisper would look for another model's on the internet.
    settings.require("model.bin", "config.json", "tokenizer.json")
    _check_compute_type(settings.compute_type, settings.device)
    return WhisperRecognizer(settings)


def _check_compute_type(compute_type: str, device: str) -> None:
    """Refuse what CTranslate2 would turn into another type without a word."""
    try:
        supported = ctranslate2.get_supported_compute_types(device)
    except (RuntimeError, ValueError) as error:
        raise SettingsError(
            f"STT_DEVICE is {device!r}, which does not work here: {error}"
        ) from error
    if compute_type not in supported:
        raise SettingsError(
            f"STT_COMPUTE_TYPE is {compute_type!r}, which this {device} cannot run; "
            f"allowed: {', '.join(sorted(supported))}"
        )
