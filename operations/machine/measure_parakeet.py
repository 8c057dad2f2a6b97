"""Parakeet's speed: ``python measure_parakeet.py DIRECTORY --device cuda [--batch 32]``.

Runs by itself, with the Python of the engine parakeet (onnx-asr). ``DIRECTORY`` holds a model's
ONNX files; with the real weights the figure can be held against the 3386 of the Open ASR
leaderboard, which is throughput in batches with NeMo, and not the time that one speaker waits. The
audio is noise, as loud as speech: a transducer's work depends little on what is said.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before ONNX Runtime, which onnx_asr loads

import numpy as np
import onnx_asr

RATE, SECONDS = 16000, 20
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def main() -> int:
    """Measure; returns the exit status."""
    parser = argparse.ArgumentParser(prog="measure_parakeet")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--device", choices=list(PROVIDERS), default="cpu")
    parser.add_argument("--type", choices=["float32", "int8"], default="float32")
    parser.add_argument("--batch", type=int, default=1, help="recordings of 20 s at once")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    model = onnx_asr.load_model(
        "nemo-conformer-tdt",
        options.directory,
        quantization=None if options.type == "float32" else options.type,
        providers=[PROVIDERS[options.device]],
    )
    noise = np.random.default_rng(1).standard_normal(RATE * SECONDS) * 0.05
    recordings: Any = [noise.astype(np.float32)] * options.batch
    model.recognize(recordings)
    began = time.perf_counter()
    for _ in range(options.runs):
        model.recognize(recordings)
    took, audio = time.perf_counter() - began, SECONDS * options.batch * options.runs
    said = {
        "library": f"onnx-asr {version('onnx-asr')}",
        "device": options.device,
        "type": options.type,
        "batch": options.batch,
        "real_time_factor": round(took / audio, 6),
        "rtfx": round(audio / took, 1),
    }
    print(json.dumps(said))
    return 0


if __name__ == "__main__":
    sys.exit(main())
