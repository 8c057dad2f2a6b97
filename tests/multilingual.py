"""The smallest Whisper model that knows a hundred languages by name, and not one word.

Its weights are random: it shows which language a request is taken to be in, and nothing else.
"""

import shutil
from pathlib import Path

from operations.machine.measure_whisper import Shape
from operations.machine.measure_whisper import make_model as make_random

SMALLEST = Shape(width=16, heads=2, encoder=1, decoder=1)


def make_model(directory: Path) -> Path:
    """Write the model into ``directory`` (made anew) and return it."""
    shutil.rmtree(directory, ignore_errors=True)
    return make_random(directory, SMALLEST, stored=None)
