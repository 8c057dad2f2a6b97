"""What an engine is to the server: it loads a model, transcribes, and unloads it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol

from stt_server.audio import Samples
from stt_server.settings import Settings, SettingsError


@dataclass(frozen=True)
class Word:
    """A word with its times in seconds."""

    word: str
    start: float
    end: float


@dataclass(frozen=True)
class Segment:
    """A part of the transcript; ``details``: what the engine says of it, by OpenAI's names."""

    start: float
    end: float
    text: str
    words: Sequence[Word] = ()
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Info:
    """The whole recording; the language where the engine knows it, and how sure it is."""

    duration: float
    language: str | None = None
    language_probability: float | None = None


@dataclass(frozen=True)
class Options:
    """A request. An engine without ``prompt`` or ``temperature`` goes on without them.

    ``stopped`` says that nobody wants the answer any more: an engine that is asked for much at once
    looks at it in between, and raises ``StoppedError``.
    """

    task: str = "transcribe"
    language: str | None = None
    prompt: str | None = None
    temperature: float = 0.0
    words: bool = False
    stopped: Callable[[], bool] = lambda: False


class Recognizer(Protocol):
    """One engine with one model.

    ``languages``: what it knows; None: nobody can tell. ``device`` and ``compute_type`` are what
    the loaded model really runs on; they stay after ``unload``. ``tasks``: OpenAI's routes that it
    has.
    """

    device: str
    compute_type: str
    version: str
    languages: Sequence[str] | None
    tasks: Sequence[str]
    loaded: bool

    def load(self) -> None:
        """Load the model, or again after ``unload``.

        Raises:
            Exception: whatever the engine has for it, such as a card without memory.
        """

    def unload(self) -> None:
        """Give the device's memory back.

        Raises:
            TimeoutError: the engine does not let go of the model.
        """

    def transcribe(self, samples: Samples, options: Options) -> tuple[Iterator[Segment], Info]:
        """Transcribe mono samples of 16 kHz, at most about two minutes of them."""


def out_of_memory(error: Exception) -> bool:
    """Whether an engine says that its device's memory is full.

    Their words: CTranslate2 "CUDA failed with error out of memory", cuBLAS
    "CUBLAS_STATUS_ALLOC_FAILED" (and "…_NOT_INITIALIZED" where not even its own fits), ONNX Runtime
    "Failed to allocate memory".
    """
    said = str(error).lower()
    words = ("out of memory", "alloc_failed", "cublas_status_not_initialized")
    return any(word in said for word in (*words, "failed to allocate memory"))


def load_recognizer(settings: Settings) -> Recognizer:
    """The engine of ``STT_ENGINE`` with its model loaded.

    Raises:
        SettingsError: the model cannot be loaded, or does not know the language.
    """
    module = import_module(f"stt_server.recognizers.{settings.engine}")
    try:
        recognizer: Recognizer = module.create(settings)
        recognizer.load()
    except SettingsError:
        raise
    except Exception as error:
        place = f"STT_MODEL_DIR is {str(settings.model_dir)!r}"
        if out_of_memory(error):
            raise SettingsError(
                f"{place}, for which the device {settings.device} has too little free memory. "
                f"See what holds it (nvidia-smi), or choose a smaller model ({error})"
            ) from error
        raise SettingsError(f"{place}, which does not run: {error}") from error
    known = recognizer.languages
    if settings.language and known is not None and settings.language not in known:
        raise SettingsError(
            f"STT_LANGUAGE is {settings.language!r}; this model knows: {', '.join(known)}"
        )
    return recognizer
