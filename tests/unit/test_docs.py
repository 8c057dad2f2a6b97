"""Links, commands and paths that the documents name exist."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from declaration.source_files import ROOT, tracked
from tests import documented
from tests.unit.program import host_after, run
from tests.unit.values import STACKS

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("[a-z]*/README.md")])
#: What the page of commands has to name.
OPERATIONS = ROOT / "docs" / "operations.md"
_FENCE = re.compile(r"^ *```.*?^ *```$", re.DOTALL | re.MULTILINE)
#: The folders of this repository: rooms, and what else has some.
_FOLDERS = sorted({each.partition("/")[0] for each in tracked(ROOT) if "/" in each})
#: Files and folders (with a slash at the end) of this repository.
_PATH = re.compile(rf"`((?:{'|'.join(map(re.escape, _FOLDERS))})/[\w./-]*(?:\.[a-z]+|/))`")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def code(text: str) -> Iterator[str]:
    """What is written as code: blocks and words in backticks."""
    yield from _FENCE.findall(text)
    yield from re.findall(r"`([^`]+)`", _FENCE.sub("", text))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def targets() -> set[str]:
    """Every target of the Makefile."""
    text = (ROOT / "Makefile").read_text()
    return set(re.findall(r"^([a-z][a-z-]*):", text, re.MULTILINE))


def helped() -> set[str]:
    """The targets that `make help` shows."""
    text = (ROOT / "Makefile").read_text()
    return set(re.findall(r"^([a-z][a-z-]*):.* ## ", text, re.MULTILINE))


def named_targets(text: str) -> set[str]:
    """The targets of every `make …` that a page has as code."""
    found: set[str] = set()
    for words in re.findall(r"\bmake((?: -s)?(?: [a-z][a-z-]*\b(?![=.]))+)", "\n".join(code(text))):
        found |= set(words.split()) - {"-s"}
    return found


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    shipped = set(STACKS.iterdir())  # an operator may have deleted one
    for link in re.findall(r"\]\(([^)\s]+)\)", _FENCE.sub("", page.read_text())):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if STACKS / target.name in shipped:
            continue
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_that_are_named_exist(page: Path) -> None:
    assert named_targets(page.read_text()) <= targets()


def test_every_command_is_explained() -> None:
    assert named_targets(OPERATIONS.read_text()) >= helped()


@pytest.mark.parametrize(
    "page", [page for page in PAGES if "decisions" not in page.parts], ids=name
)
def test_paths_that_are_named_exist(page: Path) -> None:
    """The walks of contributing.md make theirs; an operator may have deleted a stack."""
    made = (
        "roles/greeting",
        "engines/parrot",
        "roles/NAME",
        "stacks/Pulumi.NAME",
        "stacks/Pulumi.mine",
    )
    for path in _PATH.findall(page.read_text()):
        there = (ROOT / path).exists() or (STACKS.parent / path).exists()
        assert path.startswith(made) or there, path


def test_the_paths_of_every_room_are_looked_at() -> None:
    for room in ("agent", "backup", "bench", "forge", "review", "stack", "workflows"):
        assert _PATH.findall(f"`{room}/x.py` `{room}/y/`") == [f"{room}/x.py", f"{room}/y/"]


def test_the_table_of_decisions_says_what_was_replaced() -> None:
    """As each page says of itself, at its top."""
    table = (ROOT / "docs" / "decisions" / "README.md").read_text()
    for page in (ROOT / "docs" / "decisions").glob("0*.md"):
        said = re.search(r"^\*\*(Partly replaced\.|Replaced by)", page.read_text(), re.MULTILINE)
        [row] = [line for line in table.splitlines() if f"({page.name})" in line]
        marked = re.search(r"\| (partly replaced|replaced) by \d", row)
        kinds = [found[1].lower().split()[0] if found else "" for found in (said, marked)]
        assert kinds[0].rstrip(".") == kinds[1], page.name


@pytest.mark.skipif(not shutil.which("certutil"), reason="there is no certutil on PATH")
def test_the_documented_line_makes_chromium_trust_the_authority(tmp_path: Path) -> None:
    """In the home of a user who has no such database yet."""
    page = (ROOT / "docs" / "topology.md").read_text()
    [line] = [each for each in page.splitlines() if "certutil" in each]
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    words += ["-nodes", "-keyout", "key", "-out", "incus-stt.crt", "-subj", "/CN=the authority"]
    subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)
    home = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run(["sh", "-c", line], cwd=tmp_path, env=home, input=b"", timeout=60)
    assert done.returncode == 0
    listed = ["certutil", "-d", f"sql:{tmp_path}/.pki/nssdb", "-L"]
    said = subprocess.run(listed, env=home, capture_output=True, text=True, check=True).stdout
    assert re.search(r"^incus-stt +C,,", said, re.MULTILINE), said


#: What this project has in place of a line of the service's document, and the page that says so.
_IN_PLACE = {
    'stt_server_model: "small"': ("docs/troubleshooting.md", "`stt:model: small`"),
    'stt_server_quantization: "int8"': (
        "docs/troubleshooting.md",
        "`stt:quantization: int8_float16`",
    ),
    "anklume domain apply --tags stt": ("docs/operations.md", "`make stt`"),
}


@pytest.mark.parametrize("line", documented.of_the_service())
def test_the_page_has_every_command_of_the_service_s_document(line: str) -> None:
    """Word for word, with the key added. Tests with Incus type what the page has."""
    if line in _IN_PLACE:
        file, words = _IN_PLACE[line]
        assert words in (ROOT / file).read_text()
        return

    def has(command: str) -> bool:
        rest = iter(command.split())
        return all(word in rest for word in line.split())

    assert any(map(has, documented.commands())), line


#: Turns of phrase that are no plain English of today, and what could stand for them.
_ARCHAIC = {
    r"\bof before\b": "old, earlier",
    r"\bfor want of\b": "without",
    r"\bby turns\b": "in turn",
    r"\bof then\b": "that there were then",
}


def test_words_are_those_of_today() -> None:
    found = []
    for each in sorted(tracked(ROOT)):
        file = ROOT / each
        if file.suffix not in (".py", ".md", ".sh", ".yaml", ".yml") or file == Path(__file__):
            continue
        text = file.read_text(encoding="utf-8")
        for words, better in _ARCHAIC.items():
            for match in re.finditer(words, text, re.IGNORECASE):
                line = text.count("\n", 0, match.start()) + 1
                found.append(f"{each}:{line}: {match.group()} (better: {better})")
    assert not found, "\n".join(found)


def test_another_language_model_as_the_readme_has_it() -> None:
    words = (
        r"any other Ollama model \(`(stt:ollama): \{(models): \[\.\.\.\]\}` in `(stacks/[\w.]+)`"
    )
    found = re.search(words, (ROOT / "README.md").read_text())
    assert found, "the README has other words for it"
    copy = STACKS / Path(found[3]).name  # an operator may have changed the one that it names
    declared = yaml.safe_load(copy.read_text())["config"][found[1]]
    assert list(declared) == [found[2]]  # so what the README shows is all of it
    first = run("cpu", ollama=declared)
    another = run("cpu", host_after(first), first, ollama={found[2]: ["qwen3:0.6b"]})
    assert another.done == {"ai-tools/gpu-server/ollama_server/models": "update"}
    names = another.steps["ai-tools/gpu-server/ollama_server/models"].stdin
    assert "qwen3:0.6b" in names and declared[found[2]][0] not in names
