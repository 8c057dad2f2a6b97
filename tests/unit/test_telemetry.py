"""Nothing that this project starts reports to the makers of ONNX Runtime."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from declaration.source_files import ROOT
from roles import ROLES
from stack.declare import declare
from tests.unit.program import steps_of
from tests.unit.values import CPU, own

NAME = "ORT_DISABLE_TELEMETRY"
#: Programs that can load ONNX Runtime, by their own.
PROGRAMS = (
    "engines/speaches/machine/check_model.py",
    "engines/speaches/machine/speaches_app.py",
    "operations/machine/measure_parakeet.py",
    "operations/machine/measure_whisper.py",
    "stt_server/__init__.py",
)
#: Packages that load it.
LOADERS = ("faster_whisper", "onnx_asr", "onnxruntime")
#: Says at each import of a loader whether the variable was set, and lets no loader in.
WATCH = f"""
import importlib.abc, json, os, runpy, sys
os.environ.pop({NAME!r}, None)
class Watch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in {LOADERS!r}:
            print(json.dumps([name, os.environ.get({NAME!r})]))
            raise ImportError(name)
sys.meta_path.insert(0, Watch())
"""


def watched(code: str) -> list[list[str | None]]:
    """What a fresh Python imports of the loaders, each with the variable at that moment."""
    done = subprocess.run(
        [sys.executable, "-c", WATCH + code], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert found, done.stderr
    return found


@pytest.mark.parametrize("engine", ["whisper", "parakeet"])
def test_the_server_s_package_sets_it_before_any_loader(engine: str) -> None:
    found = watched(f"import stt_server.recognizers.{engine}")
    assert {value for _, value in found} == {"1"}


def test_the_variable_of_the_operator_stays() -> None:
    code = f"import os; os.environ[{NAME!r}] = '0'; import stt_server; print(os.environ[{NAME!r}])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout == "0\n"


@pytest.mark.parametrize("program", [name for name in PROGRAMS if "machine" in name])
def test_a_program_that_runs_by_itself_sets_it(program: str) -> None:
    start = f"sys.argv = [{program!r}, '--one', 'x', '--types', 'int8']; "
    start += "os.environ['INCUS_STT_LANGUAGE'] = ''; "
    found = watched(f"{start}runpy.run_path({program!r}, run_name='__main__')")
    assert {value for _, value in found} == {"1"}


def test_no_program_that_loads_it_is_forgotten() -> None:
    imports = re.compile(rf"^\s*(?:import|from) (?:{'|'.join(LOADERS)})\b", re.MULTILINE)
    rooms = ("agent", "engines", "operations", "roles", "stt_server")
    sources = [file for room in rooms for file in (ROOT / room).rglob("*.py")]
    loading = {str(file.relative_to(ROOT)) for file in sources if imports.search(file.read_text())}
    own = {name for name in loading if Path(name).parts[0] == "stt_server"}
    assert own and loading - own == set(PROGRAMS) - {"stt_server/__init__.py"}


@pytest.mark.parametrize(
    ("stack", "engine"),
    [
        ("cpu", "speaches"),
        ("gpu", "speaches"),
        ("cpu", "faster-whisper"),
        ("gpu", "faster-whisper"),
        ("cpu", "parakeet"),
        ("gpu", "parakeet"),
        ("cpu", "vosk"),
        ("cpu", "owhisper"),
    ],
)
def test_every_service_and_every_check_of_a_model_has_it(stack: str, engine: str) -> None:
    infra = own("infra.yml" if stack == "gpu" else "infra.cpu.yml")
    values = {**CPU, "infra": infra, "engine": engine, "model": "", "quantization": "auto"}
    declaration = declare(values, ROLES, ROOT).with_compute_types(["float32"])
    specs: dict[str, Any] = {name: step.spec for name, step in steps_of(declaration).items()}
    loading = [name for name in specs if name.endswith(("stt_server/service", "webui/service"))]
    assert len(loading) == 2
    for name in loading:
        assert specs[name].variables[NAME] == "1", name
    models = [spec for name, spec in specs.items() if name.endswith("stt_server/model")]
    assert [spec.check_load.environment[NAME] for spec in models] == ["1"]
