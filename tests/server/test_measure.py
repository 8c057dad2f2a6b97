"""Measuring models: what a figure stands for."""

from __future__ import annotations

from pathlib import Path

from operations.machine import measure_whisper
from operations.machine.measure_whisper import TOKENS, Shape


def test_a_window_gives_as_many_tokens_as_it_says(tmp_path: Path) -> None:
    """CTranslate2 keeps half of its limit for the prompt: speeds would look twice as good."""
    model = measure_whisper.make_model(tmp_path / "model", Shape(64, 2, 1, 1))
    found = measure_whisper.run_faster_whisper(model, "cpu", "float32", batch=2, windows=1)
    assert found["tokens"] == TOKENS == 100
    assert found["compute_type"] == "float32" and found["rtfx"] > 0
