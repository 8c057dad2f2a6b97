"""The light engine: this project's own server on faster-whisper, from packages of PyPI alone."""

from __future__ import annotations

from components.engines.engine import EngineContext
from components.engines.own_server import OwnServer, from_hub, model_directory, own_server
from components.service import ServiceArgs

FILES = (
    "README.md",
    "config.json",
    "preprocessor_config.json",
    "model.bin",
    "tokenizer.json",
    "vocabulary.*",
)


def faster_whisper(context: EngineContext) -> ServiceArgs:
    """How the light engine is installed and configured."""
    return own_server(
        context,
        OwnServer(
            name="faster-whisper",
            engine="whisper",
            description="faster-whisper",
            locks={"cpu": "requirements.txt", "cuda": "requirements-cuda.txt"},
            directory=model_directory(context),
            fetch=from_hub(context, FILES),
        ),
    )
