"""Parts of pages in docs/ that are written from the code: each stands between two marker lines."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence

from declaration.source_files import ROOT

DOCS = ROOT / "docs"
COMMAND = "make generate"
_BLOCK = "<!-- {name}: begin (generated, {command}) -->\n{text}\n<!-- {name}: end -->"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def page(name: str, text: str, parts: Mapping[str, str]) -> str:
    """A page's text with its generated parts as they should be.

    Raises:
        ValueError: the page does not have the marker lines of a part.
    """
    for part, block in parts.items():
        pattern = rf"<!-- {part}: begin .*?-->\n.*?<!-- {part}: end -->"
        wanted = _BLOCK.format(name=part, command=COMMAND, text=block)
        found = re.findall(pattern, text, re.DOTALL)
        if len(found) != 1:
            raise ValueError(f"docs/{name} needs these lines once:\n{wanted}")
        text = text.replace(found[0], wanted)
    return text


def write(blocks: Mapping[str, Mapping[str, str]]) -> None:
    """Write the pages that are stale, and name them."""
    for name, parts in blocks.items():
        text = (DOCS / name).read_text(encoding="utf-8")
        if (wanted := page(name, text, parts)) != text:
            (DOCS / name).write_text(wanted, encoding="utf-8")
            print(f"incus-stt: wrote docs/{name}", file=sys.stderr)
