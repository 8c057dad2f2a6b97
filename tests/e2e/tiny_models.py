"""The smallest models that load for real, for engines whose weights cannot be had."""

from __future__ import annotations

from tests.e2e.project import Project
from tests.tiny_parakeet import make_model as make_parakeet
from tests.tiny_vosk import make_model as make_vosk

_MAKE = {"parakeet": make_parakeet, "vosk": make_vosk}


def tiny_model(project: Project, engine: str) -> None:
    """Make an engine's in the project: ``./models/tiny-ENGINE``."""
    _MAKE[engine](project.root / "models" / f"tiny-{engine}")
