"""The commands of docs/operations.md, "Is it working?", as a reader finds them."""

from __future__ import annotations

from declaration.source_files import ROOT


def commands() -> list[str]:
    """The lines, each whole."""
    page = (ROOT / "docs" / "operations.md").read_text()
    block = page.partition("## Is it working?")[2].partition("```sh\n")[2].partition("```")[0]
    lines = block.replace("\\\n", " ").splitlines()
    return [" ".join(line.split()) for line in lines if line and not line.startswith("#")]


def command(*words: str) -> str:
    """The one that has all of these words."""
    [found] = [line for line in commands() if all(word in line for word in words)]
    return found
