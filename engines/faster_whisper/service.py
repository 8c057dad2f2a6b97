"""How faster-whisper is installed and configured: from packages only, behind our own server."""

from __future__ import annotations

from engines.own_server import (
    OwnServer,
    fetch_from_hub,
    model_directory,
    own_server,
    venv_directory,
)
from engines.service import EngineContext, EngineService

#: The files of a CTranslate2 model on the hub.
FILES = (
    "README.md",
    "config.json",
    "preprocessor_config.json",
    "model.bin",
    "tokenizer.json",
    "vocabulary.*",
)
_NAME = "faster-whisper"
_LOCKS = {"cpu": "requirements.txt", "cuda": "requirements-cuda.txt"}


def service(context: EngineContext) -> EngineService:
    """The steps and the service."""
    directory = model_directory(context)
    python = f"{venv_directory(context, _NAME, _LOCKS)}/bin/python"
    return own_server(
        context,
        OwnServer(
            name=_NAME,
            engine="whisper",
            description="faster-whisper",
            locks=_LOCKS,
            directory=directory,
            fetch=fetch_from_hub(context, python, directory, FILES),
        ),
    )
