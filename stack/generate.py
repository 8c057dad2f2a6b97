"""Write what is generated from the settings' fields: ``python -m stack.generate``.

That is the schema in ``Pulumi.yaml`` and the tables of ``docs/settings.md``, but the last, which
is the engines' (``engines.document``). Both stand between two marker lines, and the rest of the
file is left as it is.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

import declaration.interrupt  # noqa: F401  # Ctrl-C ends it with a line
from declaration.describe import Described, describe
from declaration.settings import Settings
from declaration.stack_file import secret_command
from engines import ENGINES

ROOT = Path(__file__).resolve().parent.parent
COMMAND = "make generate"
#: The marker lines, by the kind of file; ``{edge}`` is ``begin`` or ``end``.
MARKERS = {
    ".md": "<!-- settings: {edge} (generated from declaration/, `make generate`) -->",
    ".yaml": "# settings: {edge} (generated from declaration/, `make generate`)",
}


def settings() -> list[Described]:
    """Every setting; the names of the engines are put in here."""
    return [_with_engines(each) for each in describe(Settings)]


def _with_engines(each: Described) -> Described:
    if each.key != "engine":
        return each
    return each.saying(", ".join(f"`{name}`" for name in ENGINES))


def schema(described: Iterable[Described]) -> str:
    """The ``config:`` block of ``Pulumi.yaml``."""
    config: dict[str, Any] = {}
    for each in described:
        if each.nested:
            continue
        # Nothing shows Markdown here.
        text = f"{each.meaning}. Allowed: {each.allowed}".replace("`", "")
        item: dict[str, Any] = {"type": each.kind}
        if each.kind == "array":
            item["items"] = {"type": "string"}
        config[f"stt:{each.key}"] = {**item, "default": each.default, "description": text}
    return yaml.safe_dump({"config": config}, sort_keys=False, allow_unicode=True, width=10_000)


def full_tables(described: Iterable[Described]) -> str:
    """Every setting with its default, for ``docs/settings.md``; a group has a table of its own."""
    every = list(described)
    parts = [_table(each for each in every if not each.nested)]
    for group in (each for each in every if each.group):
        members = [each for each in every if each.key.startswith(f"{group.key}.")]
        parts.append(f"### `stt:{group.key}`\n\n{group.meaning}.\n\n{_table(members)}")
    return "\n".join(parts)


def _table(rows: Iterable[Described]) -> str:
    lines = ["| setting | default | allowed | meaning |", "|---|---|---|---|"]
    lines += [
        f"| `stt:{each.key}` | {_default(each)} | {_cell(each.allowed)} | {_cell(_meaning(each))} |"
        for each in rows
    ]
    return "\n".join(lines) + "\n"


def _meaning(each: Described) -> str:
    return each.meaning + (f"; set it with `{secret_command(each.key)}`" if each.secret else "")


def _default(each: Described) -> str:
    if each.default is None:
        return "not set"
    text = each.default if isinstance(each.default, str) else json.dumps(each.default)
    return f"`{text}`" if text else "empty"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def between_markers(file: Path, text: str) -> str:
    """A file's content with another text between its marker lines.

    Raises:
        ValueError: it does not have both marker lines, once each.
    """
    begin, end = (MARKERS[file.suffix].format(edge=edge) for edge in ("begin", "end"))
    content = file.read_text(encoding="utf-8")
    pattern = re.compile(rf"(^{re.escape(begin)}\n).*?(^{re.escape(end)}$)", re.DOTALL | re.M)
    if len(pattern.findall(content)) != 1:
        raise ValueError(f"{file.name}: needs the lines\n{begin}\n{end}\nonce each, in this order")
    gap = "\n" if file.suffix == ".md" else ""
    return pattern.sub(lambda found: f"{found[1]}{gap}{text}{gap}{found[2]}", content)


def generated(root: Path = ROOT) -> dict[Path, str]:
    """What each file should contain."""
    described = settings()
    texts = {
        "Pulumi.yaml": schema(described),
        "docs/settings.md": full_tables(described),
    }
    return {root / name: between_markers(root / name, text) for name, text in texts.items()}


def stale(root: Path = ROOT) -> list[str]:
    """The files whose generated part is not what the fields say."""
    return [
        str(file.relative_to(root))
        for file, text in generated(root).items()
        if file.read_text(encoding="utf-8") != text
    ]


def main() -> int:
    """Write what is stale, and name it; returns the exit status."""
    for name in stale():
        (ROOT / name).write_text(generated()[ROOT / name], encoding="utf-8")
        print(f"incus-stt: wrote {name}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
