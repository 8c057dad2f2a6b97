"""What the tests keep to themselves: no test module imports another, and e2e is only e2e's; and
what they keep to: seeds that are printed."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

from declaration.source_files import ROOT

FILES = sorted((ROOT / "tests").rglob("*.py"))


def imported(file: Path) -> list[str]:
    """The modules of tests that a file imports."""
    found: list[str] = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [name for name in found if name.startswith("tests.")]


def test_a_file_imports_no_test_module() -> None:
    found: list[str] = []
    for file in FILES:
        place = file.relative_to(ROOT / "tests")
        for name in imported(file):
            parts = name.split(".")
            of_another = any(part.startswith("test_") for part in parts)
            if of_another or (parts[1] == "e2e" and place.parts[0] != "e2e"):
                found.append(f"{place} imports {name}")
    assert found == []


def test_end_to_end_modules_share_no_subnet_and_no_name() -> None:
    """They run side by side."""
    users: dict[str, set[str]] = {}
    for file in (ROOT / "tests" / "e2e").rglob("*.py"):
        for name in re.findall(r"10\.213\.\d+|stt-e2e-[a-z]\b", file.read_text()):
            users.setdefault(name, set()).add(file.name)
    assert len(users) > 20
    assert {name: files for name, files in users.items() if len(files) > 1} == {}


def test_modules_that_are_ordered_or_left_out_are_there() -> None:
    named = re.findall(r'"(test_\w+|shared_\w+)"', (ROOT / "tests/e2e/conftest.py").read_text())
    assert len(named) > 10
    there = {path.stem for path in (ROOT / "tests" / "e2e").iterdir()}
    assert [name for name in named if name not in there] == []


def test_what_shares_a_stack_is_in_one_folder() -> None:
    """All of it runs in one process, so that the stack is made once."""
    folder = ROOT / "tests" / "e2e" / "shared_stack"
    assert f'"{folder.relative_to(ROOT)}"' in (ROOT / "tests/conftest.py").read_text()
    assert len(list(folder.glob("test_*.py"))) > 5


#: Each process that runs tests leaves the seeds that it has.
SEEDED = """
from pathlib import Path
import pytest
from tests import seeds

@pytest.mark.parametrize("each", range(4))
def test_it(each):
    Path(f"{each}.seeds").write_text(seeds.LINE)
"""


def test_the_seeds_of_a_run_are_printed_and_other_ones_in_the_next(tmp_path: Path) -> None:
    (tmp_path / "test_seeded.py").write_text(SEEDED)
    command = [sys.executable, "-m", "pytest", "-p", "xdist.plugin", "-p", "tests.conftest", "-q"]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"

    def said(*words: str, **more: str) -> str:
        done = subprocess.run(
            [*command, *words],
            cwd=tmp_path,
            env=environment | more,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        [line] = re.findall("^seeds: .*", done.stdout, re.MULTILINE)
        assert {file.read_text() for file in tmp_path.glob("*.seeds")} == {line}
        return str(line)

    assert said("-n", "2") != said()
    given = said(STT_FAULT_SEED="12", STT_FUZZ_SEED="345")
    assert given == "seeds: STT_FAULT_SEED=12 STT_FUZZ_SEED=345"
