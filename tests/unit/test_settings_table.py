"""docs/settings.md says what each setting becomes; here is the proof, for every engine."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from declaration.source_files import ROOT
from engines import ENGINES
from engines.variables import becomes
from tests.unit.program import steps_of
from tests.unit.values import PEM, changes, declared

#: Settings that only engines with Whisper's models take, with values of theirs.
WHISPER = {"model": "tiny", "quantization": "float32", "language": "de"}
#: With these there is another service or none, or its program is elsewhere. Keys are in files.
NOT_TRIED = re.compile(r"engine|enabled|infra|custom[.]health|apiKey|clients|sources[.].*")
UNIT = "[Service]\nUser=stt\nEnvironmentFile=/etc/incus-stt/custom.env\nExecStart=/bin/true\n"


def service(engine: str, tmp_path: Path, **settings: Any) -> Any:
    """The spec of the STT service."""
    if engine == "custom":
        for name, text in (("install", "true\n"), ("unit", UNIT)):
            (tmp_path / name).write_text(text)
        custom = {name: str(tmp_path / name) for name in ("install", "unit")}
        settings = {"custom": custom, "model": "mine", **settings}
    given = {"model": "", "quantization": "auto", **settings}
    declaration = declared(engine=engine, **given)
    if declaration.services[0].compute_type == "auto":
        first = declaration.engine.compute_types["cpu"][0]
        declaration = declaration.with_compute_types([first])
    [step] = (s for n, s in steps_of(declaration).items() if n.endswith("/stt_server/service"))
    return step.spec


@pytest.mark.sweep
@pytest.mark.parametrize("engine", ENGINES)
def test_a_setting_changes_exactly_what_the_table_says(engine: str, tmp_path: Path) -> None:
    before = service(engine, tmp_path).variables
    assert before
    whisper = engine in ("speaches", "faster-whisper", "custom")
    (tmp_path / "ca.pem").write_text(PEM)
    table = becomes(ENGINES[engine])
    for setting, example in changes().items():
        if NOT_TRIED.fullmatch(setting) or (setting in WHISPER and not whisper):
            continue
        value = str(tmp_path / "ca.pem") if setting == "caBundle" else example
        value = WHISPER.get(setting, value)
        group, _, key = setting.partition(".")
        after = service(engine, tmp_path, **{group: {key: value} if key else value}).variables
        changed = {name for name in {*before, *after} if before.get(name) != after.get(name)}
        named = {name for name in table.get(setting, ()) if name.isupper()}
        assert changed == named, f"stt:{setting}: give it another value in engines/variables.py"


def test_the_model_s_alias_is_in_the_file_that_the_table_names(tmp_path: Path) -> None:
    [aliases] = service("speaches", tmp_path, model="tiny").files
    assert aliases.path.endswith("/model_aliases.json")
    assert json.loads(aliases.content) == dict.fromkeys(
        ["tiny", "Systran/faster-whisper-tiny", "whisper-1"], "Systran/faster-whisper-tiny"
    )


def test_this_project_s_server_answers_to_every_name_of_the_model(tmp_path: Path) -> None:
    variables = service("faster-whisper", tmp_path, model="tiny").variables
    assert variables["STT_MODEL_NAME"] == "tiny"
    others = ["Systran/faster-whisper-tiny", "whisper-1"]
    assert json.loads(variables["STT_MODEL_ALIASES"]) == others


@pytest.mark.parametrize("engine", ["faster-whisper", "parakeet", "vosk", "owhisper"])
def test_this_project_s_server_reads_every_variable_of_its_own(engine: str, tmp_path: Path) -> None:
    sources = "".join(file.read_text() for file in (ROOT / "stt_server").rglob("*.py"))
    for name in service(engine, tmp_path).variables:
        if name.startswith("STT_"):
            assert f'"{name}"' in sources, name
