"""Memory and speed of Whisper models of the true architecture and size, with random weights.

Runs by itself where the card is, with the Python of an engine (CTranslate2, faster-whisper, NumPy):
``python measure_whisper.py --device cuda --models tiny,small --types float16,int8_float16``. It
prints a line of JSON for each combination. Every window of 30 s is made to give the same number of
tokens, since a random model does not know when to end. Each combination has a process of its own.
``--library openai-whisper`` measures that one, where it is installed, in the same way.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before ONNX Runtime, which faster_whisper may load.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

#: Whisper's shapes (``whisper.model.ModelDimensions`` of the published checkpoints).
POSITIONS, TEXT_POSITIONS, WINDOW = 1500, 448, 30
#: Tokens of a window of speech: people say about three words a second.
TOKENS = 100
#: Seconds that one measurement may take: a large model on a CPU takes an hour.
ONE_SECONDS = 4 * 3600
#: Both libraries' default for temperature 0 on their command lines.
BEAMS = 5
#: Other than float32, CTranslate2 keeps models as they are stored: the published ones in float16.
STORED = "float16"


@dataclass(frozen=True)
class Shape:
    """A model's architecture."""

    width: int
    heads: int
    encoder: int
    decoder: int
    mels: int = 80
    vocabulary: int = 51865


SHAPES = {
    "tiny": Shape(384, 6, 4, 4),
    "base": Shape(512, 8, 6, 6),
    "small": Shape(768, 12, 12, 12),
    "distil-small.en": Shape(768, 12, 12, 4),
    "medium": Shape(1024, 16, 24, 24),
    "distil-large-v3": Shape(1280, 20, 32, 2, 128, 51866),
    "large-v3-turbo": Shape(1280, 20, 32, 4, 128, 51866),
    "large-v2": Shape(1280, 20, 32, 32),
    "large-v3": Shape(1280, 20, 32, 32, 128, 51866),
}


def make_model(directory: Path, shape: Shape, stored: str | None = STORED) -> Path:
    """Write a model with random weights for faster-whisper, and return its directory.

    The tokens of ids from 0 are words, then come the special ones, then the times, as in Whisper.
    """
    import numpy as np
    from ctranslate2.specs.whisper_spec import WhisperSpec
    from faster_whisper.tokenizer import _LANGUAGE_CODES
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.models import WordLevel

    directory.mkdir(parents=True, exist_ok=True)
    codes = list(_LANGUAGE_CODES)
    special = ["<|endoftext|>", "<|startoftranscript|>", *(f"<|{code}|>" for code in codes)]
    special += ["<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>"]
    special += ["<|nospeech|>", "<|notimestamps|>"]
    times = [f"<|{step * 0.02:.2f}|>" for step in range(1501)]
    words = [f"w{number}" for number in range(shape.vocabulary - len(special) - len(times))]
    # CTranslate2 knows a multilingual Whisper by its number of tokens, from 4.8 on by an empty one.
    vocabulary = [words[0], "", *words[2:], *special, *times]
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, "w0"))
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    tokenizer.add_tokens([AddedToken(token) for token in times])
    tokenizer.save(str(directory / "tokenizer.json"))
    spec = WhisperSpec(shape.encoder, shape.heads, shape.decoder, shape.heads)
    _fill(spec, shape, np.random.default_rng(1))
    spec.register_vocabulary(vocabulary)
    ids = {token: number for number, token in enumerate(vocabulary)}
    spec.config.lang_ids = [ids[f"<|{code}|>"] for code in codes]
    spec.config.suppress_ids = [ids[token] for token in special[1:]]
    spec.config.suppress_ids_begin = [ids["<|endoftext|>"]]
    spec.config.alignment_heads = [(0, 0)]
    spec.validate()
    if stored:
        spec.optimize(quantization=stored)
    spec.save(str(directory))
    features = {"feature_size": shape.mels, "sampling_rate": 16000, "n_fft": 400, "hop_length": 160}
    (directory / "preprocessor_config.json").write_text(json.dumps(features))
    return directory


def _fill(spec: Any, shape: Shape, random: Any) -> None:
    """Give every weight of the model a random value of the right shape."""
    import numpy as np

    width = shape.width
    scale = np.float32(0.4 / width**0.5)

    def weights(*size: int) -> Any:
        return random.standard_normal(size, np.float32) * scale

    def linear(layer: Any, outputs: int, inputs: int) -> None:
        layer.weight, layer.bias = weights(outputs, inputs), weights(outputs)

    def norm(layer: Any) -> None:
        layer.gamma, layer.beta = np.ones(width, np.float32), np.zeros(width, np.float32)

    def block(layer: Any) -> None:
        norm(layer.self_attention.layer_norm)
        linear(layer.self_attention.linear[0], 3 * width, width)
        linear(layer.self_attention.linear[1], width, width)
        norm(layer.ffn.layer_norm)
        linear(layer.ffn.linear_0, 4 * width, width)
        linear(layer.ffn.linear_1, width, 4 * width)

    encoder, decoder = spec.encoder, spec.decoder
    encoder.conv1.weight, encoder.conv1.bias = weights(width, shape.mels, 3), weights(width)
    encoder.conv2.weight, encoder.conv2.bias = weights(width, width, 3), weights(width)
    encoder.position_encodings.encodings = weights(POSITIONS, width)
    norm(encoder.layer_norm)
    for layer in encoder.layer:
        block(layer)
    decoder.embeddings.weight = weights(shape.vocabulary, width)
    decoder.position_encodings.encodings = weights(TEXT_POSITIONS, width)
    norm(decoder.layer_norm)
    decoder.projection.weight = decoder.embeddings.weight
    for layer in decoder.layer:
        block(layer)
        norm(layer.attention.layer_norm)
        linear(layer.attention.linear[0], width, width)
        linear(layer.attention.linear[1], 2 * width, width)
        linear(layer.attention.linear[2], width, width)


class CardMemory:
    """The most that is in use of a card while it is watched, in MiB, as nvidia-smi says."""

    def __init__(self) -> None:
        self.before = self.most = self._now()
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    @staticmethod
    def _now() -> int:
        command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-i"]
        done = subprocess.run(  # noqa: S603
            [*command, "0"], capture_output=True, text=True, timeout=60, check=True
        )
        return int(done.stdout)

    def _watch(self) -> None:
        while not self._done.wait(0.1):
            self.most = max(self.most, self._now())

    def __enter__(self) -> CardMemory:
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._watcher.join()
        self.most = max(self.most, self._now())


def measured(device: str, run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a run says, with the memory that it took: of the card, or of this process."""
    if device == "cuda":
        with CardMemory() as memory:
            found = run()
        return found | {"mib": memory.most - memory.before}
    return run() | {"mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}


def timed(window: Callable[[], int], batch: int, windows: int) -> dict[str, Any]:
    """The speed of windows of 30 s; the first one, which loads libraries, does not count.

    ``window`` returns how many tokens it gave: libraries count their limits in different ways.
    """
    window()
    began = time.perf_counter()
    tokens = [window() for _ in range(windows)]
    took, audio = time.perf_counter() - began, WINDOW * batch * windows
    return {
        "batch": batch,
        "tokens": min(tokens),
        "real_time_factor": round(took / audio, 5),
        "rtfx": round(audio / took, 1),
    }


def run_faster_whisper(
    directory: Path, device: str, kind: str, batch: int, windows: int
) -> dict[str, Any]:
    """Load a model of ``make_model`` and transcribe silence with it."""
    import ctranslate2
    import faster_whisper
    import numpy as np

    began = time.perf_counter()
    model = faster_whisper.WhisperModel(str(directory), device=device, compute_type=kind)
    loaded = time.perf_counter() - began
    features = np.zeros((batch, model.feat_kwargs.get("feature_size", 80), 3000), np.float32)
    token = model.hf_tokenizer.token_to_id
    prompt = [token(f"<|{name}|>") for name in ("startoftranscript", "en", "transcribe")]

    def window() -> int:
        found = model.model.generate(
            model.model.encode(ctranslate2.StorageView.from_array(features)),
            [prompt] * batch,
            beam_size=BEAMS,
            max_length=2 * TOKENS,  # CTranslate2 keeps half of it for the prompt
            suppress_tokens=[token("<|endoftext|>")],
        )
        return min(len(each.sequences_ids[0]) for each in found)

    return timed(window, batch, windows) | {
        "device": model.model.device,
        "compute_type": model.model.compute_type,
        "load_seconds": round(loaded, 2),
        "version": f"ctranslate2 {ctranslate2.__version__}",
    }


def run_openai_whisper(shape: Shape, device: str, kind: str, windows: int) -> dict[str, Any]:
    """The same with openai-whisper, on PyTorch; a model of the shape, with random weights."""
    import torch
    import whisper
    from whisper.model import ModelDimensions, Whisper
    from whisper.tokenizer import get_tokenizer

    half = kind == "float16"
    began = time.perf_counter()
    model = Whisper(
        ModelDimensions(
            n_mels=shape.mels, n_audio_ctx=POSITIONS, n_audio_state=shape.width,
            n_audio_head=shape.heads, n_audio_layer=shape.encoder, n_vocab=shape.vocabulary,
            n_text_ctx=TEXT_POSITIONS, n_text_state=shape.width, n_text_head=shape.heads,
            n_text_layer=shape.decoder,
        )
    ).to(device)  # fmt: skip
    loaded = time.perf_counter() - began
    end = get_tokenizer(True, num_languages=model.num_languages).eot
    # It has beams only for one window at a time.
    mel = torch.zeros((1, shape.mels, 3000), device=device)
    options = whisper.DecodingOptions(
        language="en",
        beam_size=BEAMS,
        sample_len=TOKENS,
        suppress_tokens=[end],
        without_timestamps=True,
        fp16=half,
    )

    def window() -> int:
        found: Any = whisper.decode(model, mel, options)
        return len(found.tokens)

    return timed(window, 1, windows) | {
        "device": str(model.device),
        "compute_type": "float16" if half else "float32",
        "load_seconds": round(loaded, 2),
        "version": f"openai-whisper {whisper.__version__}, torch {torch.__version__}",
    }


def measure_one(options: argparse.Namespace) -> dict[str, Any]:
    """One combination, in this process."""
    device, kind, windows = options.device, options.types, options.windows
    if options.library == "openai-whisper":
        shape = SHAPES[options.models]
        return measured(device, lambda: run_openai_whisper(shape, device, kind, windows))
    directory, batch = Path(options.one), options.batch
    return measured(device, lambda: run_faster_whisper(directory, device, kind, batch, windows))


def main() -> int:
    """Measure; returns the exit status."""
    parser = argparse.ArgumentParser(prog="measure_whisper")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument(
        "--library", choices=["faster-whisper", "openai-whisper"], default="faster-whisper"
    )
    parser.add_argument("--models", default="tiny", help=f"some of {','.join(SHAPES)}")
    parser.add_argument("--types", default="int8,float32")
    parser.add_argument("--batch", type=int, default=8, help="windows at once; Speaches takes 8")
    parser.add_argument("--windows", type=int, default=3, help="how many times")
    parser.add_argument("--one", help="a model's directory: only that one, in this process")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure_one(options)))
        return 0
    failed = 0
    for model in options.models.split(","):
        with tempfile.TemporaryDirectory(dir="/var/tmp") as work:  # /tmp may be memory
            directory = Path(work) / "model"
            if options.library == "faster-whisper":
                make_model(directory, SHAPES[model])
            for kind in options.types.split(","):
                command = [sys.executable, __file__, "--one", str(directory), "--types", kind]
                command += ["--device", options.device, "--batch", str(options.batch)]
                command += ["--windows", str(options.windows), "--models", model]
                command += ["--library", options.library]
                said: dict[str, Any] = {"library": options.library, "model": model, "type": kind}
                try:
                    done = subprocess.run(  # noqa: S603
                        command, capture_output=True, text=True, timeout=ONE_SECONDS, check=False
                    )
                except subprocess.TimeoutExpired:
                    failed += 1
                    said["error"] = f"it did not end within {ONE_SECONDS} s"
                else:
                    if done.returncode:
                        failed += 1
                        said["error"] = (done.stderr.strip().splitlines() or ["killed"])[-1]
                    else:
                        said |= json.loads(done.stdout.splitlines()[-1])
                print(json.dumps(said), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
