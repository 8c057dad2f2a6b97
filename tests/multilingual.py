"""The smallest Whisper model that knows a hundred languages by name, and not one word.

Its weights are random: it shows which language a request is taken to be in, and nothing else.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from ctranslate2.specs.model_spec import LayerSpec
from ctranslate2.specs.whisper_spec import WhisperSpec
from faster_whisper.tokenizer import _LANGUAGE_CODES
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordLevel

WIDTH, HEADS, MELS, POSITIONS, TEXT_POSITIONS = 16, 2, 80, 1500, 448
#: CTranslate2 knows a multilingual Whisper by its number of tokens, from 4.8 on by an empty token.
TOKENS, EMPTY = 51865, ""


def make_model(directory: Path) -> Path:
    """Write the model into ``directory`` (made anew) and return it."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    special = ["<|endoftext|>", "<|startoftranscript|>"]
    special += [f"<|{code}|>" for code in _LANGUAGE_CODES]
    special += ["<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>"]
    special += ["<|nospeech|>", "<|notimestamps|>"]
    times = [f"<|{step * 0.02:.2f}|>" for step in range(1501)]
    words = [f"w{number}" for number in range(TOKENS - len(special) - len(times))]
    vocabulary = [words[0], EMPTY, *words[2:], *special, *times]
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, "w0"))
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    tokenizer.add_tokens([AddedToken(token) for token in times])
    tokenizer.save(str(directory / "tokenizer.json"))

    spec = WhisperSpec(1, HEADS, 1, HEADS)
    _fill(spec, np.random.default_rng(1))
    spec.register_vocabulary(vocabulary)
    ids = {token: number for number, token in enumerate(vocabulary)}
    spec.config.lang_ids = [ids[f"<|{code}|>"] for code in _LANGUAGE_CODES]
    spec.config.suppress_ids = [ids[token] for token in special[1:]]
    spec.config.suppress_ids_begin = [ids["<|endoftext|>"]]
    spec.config.alignment_heads = [(0, 0)]
    spec.validate()
    spec.save(str(directory))
    features = {"feature_size": MELS, "sampling_rate": 16000, "n_fft": 400, "hop_length": 160}
    (directory / "preprocessor_config.json").write_text(json.dumps(features))
    return directory


def _fill(spec: WhisperSpec, random: Any) -> None:
    """Give every weight of the model a random value of the right shape."""

    def weights(*shape: int) -> Any:
        return random.standard_normal(shape).astype(np.float32) * 0.1

    def linear(layer: LayerSpec, outputs: int, inputs: int) -> None:
        layer.weight, layer.bias = weights(outputs, inputs), weights(outputs)

    def norm(layer: LayerSpec) -> None:
        layer.gamma, layer.beta = np.ones(WIDTH, np.float32), np.zeros(WIDTH, np.float32)

    def block(layer: LayerSpec) -> None:
        norm(layer.self_attention.layer_norm)
        linear(layer.self_attention.linear[0], 3 * WIDTH, WIDTH)
        linear(layer.self_attention.linear[1], WIDTH, WIDTH)
        norm(layer.ffn.layer_norm)
        linear(layer.ffn.linear_0, 4 * WIDTH, WIDTH)
        linear(layer.ffn.linear_1, WIDTH, 4 * WIDTH)

    encoder, decoder = spec.encoder, spec.decoder
    encoder.conv1.weight, encoder.conv1.bias = weights(WIDTH, MELS, 3), weights(WIDTH)
    encoder.conv2.weight, encoder.conv2.bias = weights(WIDTH, WIDTH, 3), weights(WIDTH)
    encoder.position_encodings.encodings = weights(POSITIONS, WIDTH)
    norm(encoder.layer_norm)
    block(encoder.layer[0])
    decoder.embeddings.weight = weights(TOKENS, WIDTH)
    decoder.position_encodings.encodings = weights(TEXT_POSITIONS, WIDTH)
    norm(decoder.layer_norm)
    decoder.projection.weight = decoder.embeddings.weight
    block(decoder.layer[0])
    attention = decoder.layer[0].attention
    norm(attention.layer_norm)
    linear(attention.linear[0], WIDTH, WIDTH)
    linear(attention.linear[1], 2 * WIDTH, WIDTH)
    linear(attention.linear[2], WIDTH, WIDTH)
