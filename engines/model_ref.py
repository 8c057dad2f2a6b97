"""A model as an engine is given it. Pure: what lies on the disk is passed in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from engines.speech_model import SpeechModel


@dataclass(frozen=True)
class ModelDirectory:
    """A directory of the machine that runs Pulumi.

    ``name`` is its last component with links resolved. ``complete`` says whether it contains the
    engine's ``model_file``. ``weights`` is the size of CTranslate2's ``model.bin`` in bytes; None
    if there is none.
    """

    name: str
    complete: bool = False
    weights: int | None = None


@dataclass(frozen=True)
class ModelRef:
    """A model by the ``name`` under which clients ask for it.

    ``repository`` is what the engine calls it: a Hugging Face id, or a name of the engine's own.
    Otherwise it lies in a ``directory`` here, of which ``found`` is what the disk has. ``known`` is
    what the engine knows of it, if anything, and ``other_names`` are those of the same model: its
    short one, or its Hugging Face id.
    """

    name: str
    repository: str = ""
    directory: str = ""
    found: ModelDirectory | None = None
    known: SpeechModel | None = None
    other_names: Sequence[str] = ()

    @property
    def slug(self) -> str:
        """The model's name as one path component, in characters that are safe everywhere."""
        directory = self.found.name if self.found else PurePath(self.directory).name
        name = self.repository.replace("/", "--") or directory
        return re.sub(r"[^A-Za-z0-9._-]", "-", name).strip(".-") or "model"

    @property
    def download(self) -> int:
        """What fetching it downloads, in MB; 0 if that is not known."""
        return self.known.download if self.known else 0

    @property
    def weights(self) -> int | None:
        """The size of CTranslate2's weights in a directory, in bytes, if there are any."""
        return self.found.weights if self.found else None
