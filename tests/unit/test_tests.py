"""What all tests keep to.

No test module imports another, e2e is only e2e's, no bound of time is short, seeds are printed.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from itertools import pairwise, permutations
from pathlib import Path

import pytest

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
    """They run side by side; and what is left of one is told by how its names begin."""
    users: dict[str, set[str]] = {}
    for file in (ROOT / "tests" / "e2e").rglob("*.py"):
        for name in re.findall(r"10\.213\.\d+|stt-e2e-[a-z0-9]+", file.read_text()):
            users.setdefault(name, set()).add(file.stem.removeprefix("test_"))
    assert len(users) > 20
    assert {name: files for name, files in users.items() if len(files) > 1} == {}
    names = [name for name in users if name.startswith("stt-")]
    pairs = [(one, two) for one, two in permutations(names, 2) if two.startswith(one)]
    assert [pair for pair in pairs if users[pair[0]] != users[pair[1]]] == []


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


#: A busy machine may be late by so much; s.
LATE = 5


def short_bounds(code: str) -> list[int]:
    """The lines that assert that something took less than ``LATE`` seconds, or than a variable."""
    tree = ast.parse(code)
    numbers = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    found: set[int] = set()
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            names = _differences(function)
            for node in ast.walk(function):
                if isinstance(node, ast.Assert):
                    found |= {
                        node.lineno
                        for less, more in _orders(node)
                        if _is_difference(less, names) and not _is_long(more, numbers)
                    }
    return sorted(found)


def _differences(function: ast.FunctionDef) -> set[str]:
    """The variables, lists too, that hold what passed between two moments."""
    names: set[str] = set()
    for node in ast.walk(function):
        targets: list[ast.expr] = []
        value: ast.expr | None = None
        match node:
            case ast.Assign():
                targets, value = node.targets, node.value
            case ast.AnnAssign() | ast.AugAssign():
                targets, value = [node.target], node.value
            case ast.Call(func=ast.Attribute(value=ast.Name() as kept, attr="append")):
                targets, value = [kept], node.args[0]
        if value and _is_difference(value, names):
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def _is_difference(node: ast.expr, names: set[str]) -> bool:
    return any(
        (isinstance(each, ast.Name) and each.id in names)
        or (
            isinstance(each, ast.BinOp)
            and isinstance(each.op, ast.Sub)
            and re.search(r"\b(monotonic|perf_counter|time\.time)\(\)", ast.unparse(each))
        )
        for each in ast.walk(node)
    )


def _orders(node: ast.Assert) -> list[tuple[ast.expr, ast.expr]]:
    """What has to be less, and than what."""
    pairs: list[tuple[ast.expr, ast.expr]] = []
    for each in ast.walk(node.test):
        if isinstance(each, ast.Compare):
            sides = [each.left, *each.comparators]
            for (left, right), order in zip(pairwise(sides), each.ops, strict=True):
                if isinstance(order, ast.Lt | ast.LtE):
                    pairs.append((left, right))
                elif isinstance(order, ast.Gt | ast.GtE):
                    pairs.append((right, left))
    return pairs


def _is_long(bound: ast.expr, numbers: dict[str, ast.Constant]) -> bool:
    if isinstance(bound, ast.Name):
        if bound.id not in numbers:
            return bound.id.isupper()  # the program's own, such as days
        bound = numbers[bound.id]
    return isinstance(bound, ast.Constant) and float(str(bound.value)) >= LATE


@pytest.mark.parametrize(
    ("code", "short"),
    [
        ("assert time.monotonic() - began < 1", True),
        ("assert 3 > time.perf_counter() - began, 'late'", True),
        ("took = time.time() - began; assert took <= 4.9", True),
        (
            "late = []; late.append(time.time() - 1); assert len(late) == 3 and max(late) < 0.3",
            True,
        ),
        ("assert time.monotonic() - began < 1 + often", True),
        ("assert max(took) < (time.monotonic() - began) / 4", False),  # took is of no clock
        ("took = time.monotonic() - 1; assert took < (time.monotonic() - began) / 4", True),
        ("assert time.monotonic() - began < SHORT", True),
        ("assert time.monotonic() - began < LONG", False),
        ("assert DAYS - 1 < (end - time.time()) / 86400 <= DAYS", False),
        ("assert 0.2 < time.monotonic() - began < 15", False),
        ("assert abs(said - time.time()) < 60", False),
        ("end = time.monotonic() + 1; assert time.monotonic() < end", False),
    ],
)
def test_a_short_bound_is_found(code: str, short: bool) -> None:
    function = f"SHORT = 2\nLONG = 20\ndef test() -> None:\n    {code}"
    assert short_bounds(function) == ([4] if short else [])


def test_no_test_asserts_that_something_took_less_than_seconds() -> None:
    """What comes before what can be told; how long it takes is the machine's."""
    found = {str(file.relative_to(ROOT)): short_bounds(file.read_text()) for file in FILES}
    assert {name: lines for name, lines in found.items() if lines} == {}


def short_waits(code: str) -> list[int]:
    """The lines where something has to come within less than ``LATE`` seconds.

    That is ``assert ….wait(3)``, and a step that is applied with such a deadline and may not fail.
    """
    found: set[int] = set()

    def visit(node: ast.AST, fails: bool) -> None:
        if isinstance(node, ast.With):
            fails = fails or any("raises(" in ast.unparse(each.context_expr) for each in node.items)
        if isinstance(node, ast.Assert):
            found.update(call.lineno for call in _calls(node, "wait") if _is_short(call, "timeout"))
        elif isinstance(node, ast.Call) and not fails and node in _calls(node, "apply"):
            within = [each for each in ast.walk(node) if isinstance(each, ast.Call)]
            found.update(call.lineno for call in within if _is_short(call, "deadline", place=None))
        for each in ast.iter_child_nodes(node):
            visit(each, fails)

    visit(ast.parse(code), fails=False)
    return sorted(found)


def _calls(node: ast.AST, method: str) -> list[ast.Call]:
    """The calls of a method below a node."""
    return [
        each
        for each in ast.walk(node)
        if isinstance(each, ast.Call)
        and isinstance(each.func, ast.Attribute)
        and each.func.attr == method
    ]


def _is_short(call: ast.Call, keyword: str, place: int | None = 0) -> bool:
    """Whether a call is given less than ``LATE`` seconds, by keyword or as the argument there."""
    given = [each.value for each in call.keywords if each.arg == keyword]
    given += [] if place is None else call.args[place : place + 1]
    return any(
        isinstance(each, ast.Constant) and isinstance(each.value, int | float) and each.value < LATE
        for each in given
    )


@pytest.mark.parametrize(
    ("code", "short"),
    [
        ("assert process.wait(3) == 0", True),
        ("assert event.wait(timeout=0.5)", True),
        ("assert process.wait(30) == 0", False),
        ("event.wait(1)", False),
        ("agent.apply('x', agent.service('a', deadline=1))", True),
        ("agent.apply('x', agent.service('a', deadline=20))", False),
        ("with raises(StepError): agent.apply('x', agent.service('a', deadline=1))", False),
    ],
)
def test_a_short_wait_is_found(code: str, short: bool) -> None:
    assert short_waits(f"def test() -> None:\n    {code}") == ([2] if short else [])


def test_no_test_needs_success_within_less_than_seconds() -> None:
    found = {str(file.relative_to(ROOT)): short_waits(file.read_text()) for file in FILES}
    assert {name: lines for name, lines in found.items() if lines} == {}


#: Each process that runs tests leaves the seeds that it has.
SEEDED = """
from pathlib import Path
import pytest
from tests import seeds

@pytest.mark.parametrize("each", range(4))
def test_it(each):
    Path(f"{each}.seeds").write_text(seeds.LINE)
"""


def run_pytest(tests: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the tests of a directory with what ``tests/conftest.py`` has for all tests."""
    plugins = ("xdist.plugin", "pytest_rerunfailures", "tests.conftest")
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    return subprocess.run(
        [sys.executable, "-m", "pytest", *(f"-p{each}" for each in plugins), "-q", *words],
        cwd=tests,
        env=environment | more,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_seeds_of_a_run_are_printed_and_other_ones_in_the_next(tmp_path: Path) -> None:
    (tmp_path / "test_seeded.py").write_text(SEEDED)

    def said(*words: str, **more: str) -> str:
        done = run_pytest(tmp_path, *words, **more)
        assert done.returncode == 0, done.stdout + done.stderr
        [line] = re.findall("^seeds: .*", done.stdout, re.MULTILINE)
        assert {file.read_text() for file in tmp_path.glob("*.seeds")} == {line}
        return str(line)

    assert said("-n", "2") != said()
    given = said(STT_FAULT_SEED="12", STT_FUZZ_SEED="345")
    assert given == "seeds: STT_FAULT_SEED=12 STT_FUZZ_SEED=345"


FAILS_ONCE = """
from pathlib import Path

def test_once():
    there = Path(__file__).with_suffix(".there")
    first = not there.exists()
    there.touch()
    assert not first, "what went wrong the first time"

def test_ever():
    assert False, "what goes wrong each time"
"""


def test_what_fails_once_is_shown_although_it_passes(tmp_path: Path) -> None:
    """As `.ci/run` has it; without its option nothing is run again."""
    file = tmp_path / "test_made.py"
    file.write_text(FAILS_ONCE)
    [option] = re.findall(r'PYTEST_ADDOPTS="(.+?) \$', (ROOT / ".ci" / "run").read_text())

    def said(*words: str) -> str:
        file.with_suffix(".there").unlink(missing_ok=True)
        done = run_pytest(tmp_path, *words)
        assert done.returncode == 1, done.stdout + done.stderr
        return done.stdout

    again = said(*option.split())
    assert "1 failed, 1 passed, 2 rerun" in again
    ran_again = again[again.index("failed and run again: ") :]
    for text in ("test_once", "what went wrong the first time", "what goes wrong each time"):
        assert text in ran_again
    assert "2 failed in" in said()
