"""The commands of docs/operations.md, "Is it working?", as a reader finds them.

``of_the_service`` are those of the document that this project implements, of which the page has
every one.
"""

from __future__ import annotations

import re
from pathlib import Path

from declaration.source_files import ROOT


def commands() -> list[str]:
    """The lines, each whole."""
    page = (ROOT / "docs" / "operations.md").read_text()
    return _lines(
        page.partition("## Is it working?")[2].partition("```sh\n")[2].partition("```")[0]
    )


def of_the_service() -> list[str]:
    """The lines of the document's sections Verification and Troubleshooting, each whole."""
    text = (Path(__file__).parent / "stt_service.md").read_text()
    blocks = re.findall(r"^```bash\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in _lines(block)]


def _lines(block: str) -> list[str]:
    lines = block.replace("\\\n", " ").splitlines()
    return [" ".join(line.split()) for line in lines if line and not line.startswith("#")]


def command(*words: str) -> str:
    """The one that has all of these words."""
    [found] = [line for line in commands() if all(word in line for word in words)]
    return found
