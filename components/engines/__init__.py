"""The STT servers. An engine is one file; ``ENGINES`` maps ``stt:engine`` to it."""

from components.engines.custom import custom
from components.engines.engine import Engine, EngineContext
from components.engines.faster_whisper import faster_whisper
from components.engines.owhisper import owhisper
from components.engines.parakeet import parakeet
from components.engines.speaches import speaches
from components.engines.vosk import vosk

ENGINES: dict[str, Engine] = {
    "speaches": speaches,
    "faster-whisper": faster_whisper,
    "parakeet": parakeet,
    "vosk": vosk,
    "owhisper": owhisper,
    "custom": custom,
}

__all__ = ["ENGINES", "Engine", "EngineContext"]
