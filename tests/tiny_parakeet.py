"""The smallest Parakeet: a NeMo TDT transducer in ONNX, with the real one's inputs and outputs.

Its weights are random, so its words mean nothing; its shapes are what onnx-asr loads and runs.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

MELS, WIDTH, SUBSAMPLING, STATE = 128, 16, 8, 4
#: Parts of words; a new word begins with the sign that SentencePiece has for a space.
TOKENS = ["\u2581one", "\u2581two", "\u2581thr", "ee", "\u2581four", "\u2581fi", "ve"]
DURATIONS = 5


def make_model(directory: Path, kinds: tuple[str, ...] = ("", ".int8")) -> Path:
    """Write the model into ``directory`` (made anew) and return it.

    ``kinds`` are the suffixes of the files; those of int8 hold the same weights.
    """
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    config = {"model_type": "nemo-conformer-tdt", "features_size": MELS, "subsampling_factor": 8}
    (directory / "config.json").write_text(json.dumps(config))
    tokens = [*TOKENS, "<blk>"]
    (directory / "vocab.txt").write_text(
        "".join(f"{token} {number}\n" for number, token in enumerate(tokens)), encoding="utf-8"
    )
    for kind in kinds:
        random = np.random.default_rng(3)
        onnx.save(_encoder(random), directory / f"encoder-model{kind}.onnx")
        onnx.save(_decoder(random, len(tokens)), directory / f"decoder_joint-model{kind}.onnx")
    return directory


def _weights(random: Any, name: str, *shape: int) -> Any:
    return numpy_helper.from_array(random.standard_normal(shape).astype(np.float32) * 0.4, name)


def _model(graph: Any) -> Any:
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _value(name: str, kind: int, *shape: Any) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def _encoder(random: Any) -> Any:
    """One convolution, with the stride of the real encoder's subsampling."""
    nodes = [
        helper.make_node("Conv", ["audio_signal", "kernel"], ["outputs"], strides=[8], pads=[0, 7]),
        helper.make_node("Sub", ["length", "one"], ["less"]),
        helper.make_node("Div", ["less", "eight"], ["parts"]),
        helper.make_node("Add", ["parts", "one"], ["encoded_lengths"]),
    ]
    graph = helper.make_graph(
        nodes,
        "encoder",
        [
            _value("audio_signal", TensorProto.FLOAT, "batch", MELS, "time"),
            _value("length", TensorProto.INT64, "batch"),
        ],
        [
            _value("outputs", TensorProto.FLOAT, "batch", WIDTH, "part"),
            _value("encoded_lengths", TensorProto.INT64, "batch"),
        ],
        [
            _weights(random, "kernel", WIDTH, MELS, SUBSAMPLING),
            numpy_helper.from_array(np.array(1, np.int64), "one"),
            numpy_helper.from_array(np.array(SUBSAMPLING, np.int64), "eight"),
        ],
    )
    return _model(graph)


def _decoder(random: Any, tokens: int) -> Any:
    """An embedding of the last token beside what was heard; states are handed through."""
    nodes = [
        helper.make_node("Transpose", ["encoder_outputs"], ["heard"], perm=[0, 2, 1]),
        helper.make_node("Gather", ["embedding", "targets"], ["said"]),
        helper.make_node("Add", ["heard", "said"], ["sum"]),
        helper.make_node("Tanh", ["sum"], ["joint"]),
        helper.make_node("MatMul", ["joint", "out"], ["flat"]),
        helper.make_node("Unsqueeze", ["flat", "axis"], ["outputs"]),
        helper.make_node("Identity", ["target_length"], ["prednet_lengths"]),
        helper.make_node("Identity", ["input_states_1"], ["output_states_1"]),
        helper.make_node("Identity", ["input_states_2"], ["output_states_2"]),
    ]
    states = [2, "batch", STATE]
    graph = helper.make_graph(
        nodes,
        "decoder_joint",
        [
            _value("encoder_outputs", TensorProto.FLOAT, "batch", WIDTH, "time"),
            _value("targets", TensorProto.INT32, "batch", "tokens"),
            _value("target_length", TensorProto.INT32, "batch"),
            _value("input_states_1", TensorProto.FLOAT, *states),
            _value("input_states_2", TensorProto.FLOAT, *states),
        ],
        [
            _value("outputs", TensorProto.FLOAT, "batch", "time", "tokens", tokens + DURATIONS),
            _value("prednet_lengths", TensorProto.INT32, "batch"),
            _value("output_states_1", TensorProto.FLOAT, *states),
            _value("output_states_2", TensorProto.FLOAT, *states),
        ],
        [
            _weights(random, "embedding", tokens, WIDTH),
            _weights(random, "out", WIDTH, tokens + DURATIONS),
            numpy_helper.from_array(np.array([1], np.int64), "axis"),
        ],
    )
    return _model(graph)
