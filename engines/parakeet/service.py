"""How Parakeet is installed and configured: by onnx-asr, behind our own server."""

from __future__ import annotations

from engines.own_server import (
    OwnServer,
    fetch_from_hub,
    model_directory,
    own_server,
    venv_directory,
)
from engines.service import EngineContext, EngineService

_NAME = "parakeet"
_LOCKS = {"cpu": "requirements-parakeet.txt", "cuda": "requirements-parakeet-cuda.txt"}
_PARTS = ("encoder-model", "decoder_joint-model")


def service(context: EngineContext) -> EngineService:
    """The steps and the service."""
    part = ".int8" if context.compute_type == "int8" else ""
    files = [
        "config.json",
        "vocab.txt",
        # Weights above 2 GB are in a file beside.
        *(f"{name}{part}.onnx{data}" for name in _PARTS for data in ("", ".data")),
    ]
    directory = model_directory(context, f"-{context.compute_type}")
    python = f"{venv_directory(context, _NAME, _LOCKS)}/bin/python"
    known = context.model.known
    return own_server(
        context,
        OwnServer(
            name=_NAME,
            engine="parakeet",
            description="Parakeet (onnx-asr)",
            locks=_LOCKS,
            directory=directory,
            fetch=fetch_from_hub(context, python, directory, files),
            languages=sorted(known.languages) if known else (),
        ),
    )
