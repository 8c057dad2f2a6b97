"""The smallest Whisper model that knows a hundred languages by name, and not one word.

Its weights are random: it shows which language a request is taken to be in, and nothing else. After
a few tokens it ends its text; left to chance it would go on for as long as it may.
"""

import shutil
from pathlib import Path
from typing import Any
from unittest import mock

from operations.machine import measure_whisper
from operations.machine.measure_whisper import Shape

SMALLEST = Shape(width=16, heads=2, encoder=1, decoder=1)
#: Its encoder takes about a second for each window of 30 s, on two cores of 2026.
SLOW = Shape(width=768, heads=12, encoder=6, decoder=1)
#: The position from which on the text ends; its first tokens are the prompt.
LAST = 10

_fill = measure_whisper._fill


def _fill_and_end(spec: Any, shape: Shape, random: Any) -> None:
    """Random weights, of which those of the last positions point to the end of the text."""
    import numpy as np
    from faster_whisper.tokenizer import _LANGUAGE_CODES

    _fill(spec, shape, random)
    end = shape.vocabulary - 1501 - len(_LANGUAGE_CODES) - 8
    direction = random.standard_normal(shape.width).astype(np.float32)
    direction -= direction.mean()
    direction /= np.linalg.norm(direction)
    spec.decoder.embeddings.weight[end] = 10 * direction
    spec.decoder.position_encodings.encodings[LAST:] += 100 * direction


def make_model(directory: Path, shape: Shape = SMALLEST) -> Path:
    """Write the model into ``directory`` (made anew) and return it."""
    shutil.rmtree(directory, ignore_errors=True)
    with mock.patch.object(measure_whisper, "_fill", _fill_and_end):
        return measure_whisper.make_model(directory, shape, stored=None)
