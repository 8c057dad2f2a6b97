"""An entry of Hugging Face's cache for a directory of the operator's: Speaches finds no other.

``link_model.py ENTRY DIRECTORY``: links to the model's files, and a README that says what it is.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path

CARD = Path(__file__).with_name("model_card.md")


def link(entry: Path, directory: Path) -> None:
    """Write the entry again."""
    revision = hashlib.sha256(str(directory).encode()).hexdigest()[:40]
    shutil.rmtree(entry, ignore_errors=True)
    snapshot = entry / "snapshots" / revision
    snapshot.mkdir(parents=True)
    (entry / "blobs").mkdir()
    for file in directory.iterdir():
        if file.name not in (CARD.name, "README.md", ".seal"):
            (snapshot / file.name).symlink_to(file)
    (snapshot / "README.md").write_text(CARD.read_text(encoding="utf-8"), encoding="utf-8")
    (entry / "refs").mkdir()
    (entry / "refs" / "main").write_text(revision, encoding="ascii")


if __name__ == "__main__":
    link(Path(sys.argv[1]), Path(sys.argv[2]))
