"""The STT servers. An engine is one file; ``ENGINES`` maps ``stt:engine`` to it."""

from components.engines.engine import Engine, EngineContext
from components.engines.faster_whisper import faster_whisper
from components.engines.speaches import speaches

ENGINES: dict[str, Engine] = {"speaches": speaches, "faster-whisper": faster_whisper}

__all__ = ["ENGINES", "Engine", "EngineContext"]
