"""NVIDIA Parakeet TDT behind this project's own server, by onnx-asr (docs/decisions/0008)."""

from __future__ import annotations

from components.engines.engine import EngineContext
from components.engines.own_server import OwnServer, from_hub, model_directory, own_server
from components.service import ServiceArgs


def parakeet(context: EngineContext) -> ServiceArgs:
    """How Parakeet is installed and configured."""
    kind = context.compute_type
    part = ".int8" if kind == "int8" else ""
    files = [
        "config.json",
        "vocab.txt",
        # Weights above 2 GB lie in a file beside.
        *(f"{name}{part}.onnx{data}" for name in _PARTS for data in ("", ".data")),
    ]
    known = context.model.known
    return own_server(
        context,
        OwnServer(
            name="parakeet",
            engine="parakeet",
            description="Parakeet (onnx-asr)",
            locks={"cpu": "requirements-parakeet.txt", "cuda": "requirements-parakeet-cuda.txt"},
            directory=model_directory(context, f"-{kind}"),
            fetch=from_hub(context, files),
            languages=sorted(known.languages) if known else (),
        ),
    )


_PARTS = ("encoder-model", "decoder_joint-model")
