"""Whether Speaches would take a model and load it: ``check_model.py DIRECTORY COMPUTE_TYPE NAME``.

DIRECTORY is a model's directory, or its entry in Hugging Face's cache.

Run by Speaches' own Python before the service that runs is touched. It loads on the CPU, because
the card's memory may be full. NAME is what errors call the model.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before faster_whisper, which may load ONNX Runtime

from faster_whisper import WhisperModel
from huggingface_hub import ModelCard

#: Speaches takes only models whose README has all of these.
TAGS = frozenset({"ctranslate2", "automatic-speech-recognition"})


def missing_tags(directory: Path) -> frozenset[str]:
    """What the model's README lacks."""
    readme = directory / "README.md"
    if not readme.is_file():
        return TAGS
    card = ModelCard.load(readme).data
    return TAGS - {card.library_name, card.pipeline_tag, *(card.tags or [])}


def snapshot(directory: Path) -> Path:
    """The model's files: of an entry of Hugging Face's cache, its current snapshot."""
    current = directory / "refs" / "main"
    if current.is_file():
        return directory / "snapshots" / current.read_text(encoding="ascii").strip()
    return directory


def main(directory: str, compute_type: str, name: str) -> None:
    """Check the README, then load.

    Raises:
        SystemExit: Speaches would refuse the model, or it does not load.
    """
    place = snapshot(Path(directory))
    if missing_tags(place):
        sys.exit(
            f"stt:model {name}: its README does not say that it is a CTranslate2 speech model, and "
            "Speaches refuses others. Choose another model, or stt:engine faster-whisper."
        )
    try:
        WhisperModel(str(place), device="cpu", compute_type=compute_type, local_files_only=True)
    except Exception as error:  # each library below has its own
        sys.exit(f"stt:model {name} does not load ({error}).")


if __name__ == "__main__":
    main(*sys.argv[1:])
