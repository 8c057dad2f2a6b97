"""Parts of files that are written from the code: each stands between two marker lines."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from declaration.source_files import ROOT

COMMAND = "make generate"
#: How a marker line looks, by the kind of file.
_COMMENTS = {".md": "<!-- {} -->", ".yaml": "# {}"}
#: Generated parts by their names, by the file's.
Parts = Mapping[str, Mapping[str, str]]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def joined(*each: Parts) -> Parts:
    """All parts of every file."""
    names = dict.fromkeys(name for parts in each for name in parts)
    return {
        name: {part: text for parts in each for part, text in parts.get(name, {}).items()}
        for name in names
    }


def page(name: str, text: str, parts: Mapping[str, str]) -> str:
    """A file's text with its generated parts as they should be.

    Raises:
        ValueError: the file does not have the marker lines of a part, once each.
    """
    comment = _COMMENTS[Path(name).suffix]
    for part, block in parts.items():
        begin = comment.format(f"{part}: begin (generated, {COMMAND})")
        end = comment.format(f"{part}: end")
        pattern = rf"^{re.escape(begin)}\n.*?^{re.escape(end)}$"
        wanted = f"{begin}\n{block}\n{end}"
        found = re.findall(pattern, text, re.DOTALL | re.MULTILINE)
        if len(found) != 1:
            raise ValueError(f"{name} needs these lines once:\n{wanted}")
        text = text.replace(found[0], wanted)
    return text


def stale(every: Parts, root: Path = ROOT) -> dict[str, str]:
    """The files that are not as they should be, with the text that they should have."""
    found: dict[str, str] = {}
    for name, parts in every.items():
        text = (root / name).read_text(encoding="utf-8")
        if (wanted := page(name, text, parts)) != text:
            found[name] = wanted
    return found


def write(every: Parts) -> None:
    """Write the files that are stale, and name them."""
    for name, text in stale(every).items():
        (ROOT / name).write_text(text, encoding="utf-8")
        print(f"incus-stt: wrote {name}", file=sys.stderr)
