"""docs/settings.md says what each setting becomes; here is the proof, for every engine."""

from __future__ import annotations

import re
from typing import Any

import pytest
from components.engines.speaches import READERS

from tests.e2e.project import ROOT
from tests.unit.program import run

TABLE = ROOT / "docs" / "settings.md"
#: Another value of each setting, which every engine takes.
OTHER: dict[str, Any] = {
    "stt:host": "127.0.0.1",
    "stt:port": 8001,
    "stt:keepAlive": "7m",
}
WHISPER = {"stt:model": "tiny", "stt:quantization": "float32", "stt:language": "de"}
COLUMN = {"speaches": 1, "faster-whisper": 2, "parakeet": 2, "vosk": 2}


def rows() -> dict[str, list[str]]:
    _, _, section = TABLE.read_text().partition("## What a setting becomes in an engine\n")
    lines = [line for line in section.splitlines() if line.startswith("| `stt:")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {each[0].strip("`"): each for each in cells}


def environment(monkeypatch: pytest.MonkeyPatch, engine: str, **settings: Any) -> dict[str, str]:
    """The variables of the engine's unit."""
    program = run(monkeypatch, "cpu", engine=engine, **settings)
    said = str(program.commands["ai-tools/gpu-server/stt_server/configure"].inputs["stdin"])
    _, _, file = said.partition("# Made by incus-stt; `pulumi up` writes it again.\n")
    _, _, file = file.partition("# Made by incus-stt; `pulumi up` writes it again.\n")
    return dict(re.findall(r'^([A-Z_]+)="(.*)"$', file, re.MULTILINE))


@pytest.mark.parametrize("engine", COLUMN)
def test_a_setting_changes_exactly_what_the_table_says(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = environment(monkeypatch, engine)
    assert before
    whisper = engine in ("speaches", "faster-whisper")
    for setting, value in {**OTHER, **(WHISPER if whisper else {})}.items():
        after = environment(monkeypatch, engine, **{setting.removeprefix("stt:"): value})
        changed = {name for name in before if before[name] != after[name]}
        wanted = set(re.findall(r"`([A-Z][A-Z_]+)`", rows()[setting][COLUMN[engine]]))
        assert changed == wanted, setting


def test_every_variable_of_speaches_has_a_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(environment(monkeypatch, "speaches")) <= set(READERS)
