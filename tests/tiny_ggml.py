"""The smallest model that whisper.cpp loads: GGML's format by hand, random weights.

Its vocabulary has the true size, for whisper.cpp knows the special tokens by their numbers; its
words mean nothing.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

MAGIC = 0x67676D6C
VOCABULARY, POSITIONS, TEXT_POSITIONS, MELS, FREQUENCIES = 51864, 1500, 448, 80, 201
WIDTH, HEADS, LAYERS = 64, 2, 1
#: GGML's number of float16.
HALF = 1
#: What stands before the special tokens, which whisper.cpp adds itself.
WORDS = 50256


def make_model(directory: Path) -> Path:
    """Write ``model.ggml`` into ``directory`` and return the file."""
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "model.ggml"
    random = np.random.default_rng(5)
    sizes = (VOCABULARY, POSITIONS, WIDTH, HEADS, LAYERS, TEXT_POSITIONS, WIDTH, HEADS, LAYERS)
    with file.open("wb") as out:
        out.write(struct.pack("<i", MAGIC))
        out.write(struct.pack("<11i", *sizes, MELS, HALF))
        out.write(struct.pack("<2i", MELS, FREQUENCIES))
        out.write((random.random((MELS, FREQUENCIES)) / 100).astype("<f4").tobytes())
        out.write(struct.pack("<i", WORDS))
        for number in range(WORDS):
            # whisper.cpp looks for the space by itself.
            word = f" w{number}".encode() if number else b" "
            out.write(struct.pack("<i", len(word)) + word)
        for name, shape in _tensors():
            data = random.standard_normal(shape).astype("<f4") * 0.05
            if name.endswith(("ln.weight", "ln_post.weight")):
                data[:] = 1
            encoded = name.encode()
            # Matrices are in float16; biases, norms and positions stay as they are.
            half = name.endswith(".weight") and len(shape) > 1
            data = data.astype("<f2") if half else data
            out.write(struct.pack("<3i", len(shape), len(encoded), HALF if half else 0))
            out.write(struct.pack(f"<{len(shape)}i", *reversed(shape)))
            out.write(encoded + data.tobytes())
    return file


def _tensors() -> list[tuple[str, tuple[int, ...]]]:
    found: list[tuple[str, tuple[int, ...]]] = [
        ("encoder.positional_embedding", (POSITIONS, WIDTH)),
        ("encoder.conv1.weight", (WIDTH, MELS, 3)),
        ("encoder.conv1.bias", (WIDTH, 1)),
        ("encoder.conv2.weight", (WIDTH, WIDTH, 3)),
        ("encoder.conv2.bias", (WIDTH, 1)),
        *_pair("encoder.ln_post", WIDTH),
        ("decoder.positional_embedding", (TEXT_POSITIONS, WIDTH)),
        ("decoder.token_embedding.weight", (VOCABULARY, WIDTH)),
        *_pair("decoder.ln", WIDTH),
    ]
    for side in ("encoder", "decoder"):
        for layer in range(LAYERS):
            found += _block(f"{side}.blocks.{layer}", cross=side == "decoder")
    return found


def _pair(name: str, outputs: int, *inputs: int) -> list[tuple[str, tuple[int, ...]]]:
    return [(f"{name}.weight", (outputs, *inputs)), (f"{name}.bias", (outputs,))]


def _block(name: str, cross: bool) -> list[tuple[str, Any]]:
    found = [
        *_pair(f"{name}.mlp_ln", WIDTH),
        *_pair(f"{name}.mlp.0", 4 * WIDTH, WIDTH),
        *_pair(f"{name}.mlp.2", WIDTH, 4 * WIDTH),
    ]
    for kind in ("attn", "cross_attn") if cross else ("attn",):
        found += [
            *_pair(f"{name}.{kind}_ln", WIDTH),
            *_pair(f"{name}.{kind}.query", WIDTH, WIDTH),
            (f"{name}.{kind}.key.weight", (WIDTH, WIDTH)),
            *_pair(f"{name}.{kind}.value", WIDTH, WIDTH),
            *_pair(f"{name}.{kind}.out", WIDTH, WIDTH),
        ]
    return found
