"""CTranslate2's compute types, for the engines that are built on it."""

from __future__ import annotations

#: By device, the best first. CTranslate2 silently replaces a type that the device does not have.
COMPUTE_TYPES = {
    "cuda": (
        "float16",
        "int8_float16",
        "int8",
        "bfloat16",
        "int8_bfloat16",
        "int8_float32",
        "float32",
    ),
    "cpu": ("int8", "int8_float32", "float32"),
}
#: OpenMP's threads sleep while they wait; by default they spin. On a busy CPU a transcription takes
#: a third of the time then (docs/measurements.md).
OPENMP = {"OMP_WAIT_POLICY": "PASSIVE"}
_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}


def weight_bytes(compute_type: str) -> int:
    """Bytes that a weight takes: ``int8_float16`` stores int8 and computes in float16."""
    return _BYTES[compute_type.partition("_")[0]]
