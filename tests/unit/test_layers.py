"""Which room may import which. Dependencies run downwards only."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from declaration.source_files import ROOT, tracked
from engines import ENGINES
from roles import ROLES

#: The rooms that a room may import beside itself.
ALLOWED: dict[str, set[str]] = {
    "agent": set(),
    "declaration": {"agent"},
    "engines": {"declaration", "agent"},
    "stack": {"declaration", "engines"},
    "gpu": {"declaration", "engines", "stack", "agent"},
    "roles": {"declaration", "engines", "stack", "gpu", "agent"},
    "host": {"declaration", "agent"},
    "bootstrap": {"declaration", "stack", "roles"},
    "stt_server": set(),
    "review": {"declaration", "engines"},
    "forge": set(),
    "operations": {"declaration", "engines", "stack", "gpu", "roles", "agent", "host"},
    "doctor": {
        *("declaration", "engines", "stack", "gpu", "roles", "agent", "host", "operations"),
    },
    "lock": {"declaration", "engines", "roles"},
    "backup": {"declaration", "stack", "roles", "host", "operations"},
    "bench": {"agent", "declaration", "host"},
    "plugins": set(),
}
#: The rooms that a room may not import, where it may import the rest.
FORBIDDEN: dict[str, set[str]] = {
    "components": {
        *("operations", "doctor", "backup", "lock", "plugins", "bootstrap", "bench", "review"),
        "forge",
    }
}
#: Rooms that only have the standard library: they run where nothing is installed.
BARE = ("agent", "forge")
#: A program that runs in a machine may use what another one that is brought there has.
IN_MACHINES = {"engines/speaches/machine/speaches_app.py": "stt_server"}
#: What a room's start hands on to the rest of it, which may not import that.
HANDED_ON = {"review/__main__.py": "roles"}
#: Where pulumi may be imported: what registers resources, and what stands in for Pulumi itself.
PULUMI = ("components/", "__main__.py", "plugins/")
PULUMI_COMMAND = ("components/command.py", "plugins/")
CONFIG = ("components/config.py", "plugins/")


def imports(tree: ast.AST, package: str) -> Iterator[str]:
    """The absolute names that a module imports, by whatever form of import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                up = parts[: len(parts) - node.level + 1]
                base = ".".join([*up, *([base] if base else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def reads_config(tree: ast.AST, names: set[str]) -> bool:
    """Whether a module uses ``pulumi.Config``, or what is below it."""
    if any(name == "pulumi.Config" or name.startswith("pulumi.runtime.config") for name in names):
        return True
    return any(
        isinstance(node, ast.Attribute)
        and node.attr == "Config"
        and isinstance(node.value, ast.Name)
        and node.value.id == "pulumi"
        for node in ast.walk(tree)
    )


def violations(root: Path) -> list[str]:
    """Every import that no room below should need, as ``FILE imports NAME``."""
    files = [
        file
        for file in sorted(root.rglob("*.py"))
        if not {"tests", "node_modules"} & set(file.relative_to(root).parts)
        and not any(part.startswith(".") for part in file.relative_to(root).parts)
    ]
    ours = {file.relative_to(root).parts[0].removesuffix(".py") for file in files} | {"tests"}
    found: list[str] = []
    for file in files:
        path = file.relative_to(root)
        shown, room = path.as_posix(), path.parts[0].removesuffix(".py")
        tree = ast.parse(file.read_text(encoding="utf-8"))
        names = set(imports(tree, ".".join(path.parts[:-1])))
        for name in sorted(names):
            top = name.partition(".")[0]
            beside = IN_MACHINES.get(shown)
            if beside and name.startswith(f"{beside}."):
                continue
            if top == HANDED_ON.get(shown):
                continue
            if top in ours - {room} and (
                (room in ALLOWED and top not in ALLOWED[room])
                or top in FORBIDDEN.get(room, set())
                or top in ("tests", "__main__")
            ):
                found.append(f"{shown} imports {name}")
            if room in BARE and top not in {*sys.stdlib_module_names, *ours}:
                found.append(f"{shown} imports {name}")
            if top == "pulumi" and not shown.startswith(PULUMI):
                found.append(f"{shown} imports {name}")
            if top == "pulumi_command" and not shown.startswith(PULUMI_COMMAND):
                found.append(f"{shown} imports {name}")
        if reads_config(tree, names) and not shown.startswith(CONFIG):
            found.append(f"{shown} reads pulumi.Config")
    return found


def test_dependencies_run_downwards_only() -> None:
    assert violations(ROOT) == []


def test_the_rooms_are_those_that_are_looked_at() -> None:
    """One that is new or was renamed would be skipped."""
    there = {Path(name).parts[0] for name in tracked(ROOT) if name.endswith(".py") and "/" in name}
    assert there == {*ALLOWED, *FORBIDDEN, "tests"}


@pytest.mark.parametrize(
    ("file", "line", "wrong"),
    [
        ("declaration/x.py", "import engines", "imports engines"),
        ("declaration/x.py", "from stack.declare import declare", "imports stack.declare.declare"),
        ("declaration/x.py", "import pulumi", "imports pulumi"),
        ("engines/vosk/x.py", "from gpu import cards", "imports gpu.cards"),
        ("engines/vosk/x.py", "def f():\n    import components.gpu", "imports components.gpu"),
        ("stack/x.py", "from gpu.planner import GpuPlan", "imports gpu.planner.GpuPlan"),
        ("gpu/x.py", "from components.live import Live", "imports components.live.Live"),
        ("roles/stt/x.py", "import components", "imports components"),
        ("components/x.py", "import operations.host", "imports operations.host"),
        ("components/x.py", "from tests.unit import program", "imports tests.unit.program"),
        ("components/x.py", "import pulumi_command", "imports pulumi_command"),
        ("components/x.py", "import pulumi\npulumi.Config()", "reads pulumi.Config"),
        ("components/x.py", "from pulumi import Config", "reads pulumi.Config"),
        ("components/x.py", "from pulumi.runtime import config", "reads pulumi.Config"),
        ("operations/x.py", "import pulumi", "imports pulumi"),
        ("agent/x.py", "from declaration import problems", "imports declaration.problems"),
        ("host/x.py", "import engines", "imports engines"),
        ("agent/x.py", "def f():\n    import httpx", "imports httpx"),
        ("forge/x.py", "import yaml", "imports yaml"),
        ("review/x.py", "import roles", "imports roles"),
        ("plugins/x.py", "import declaration.step", "imports declaration.step"),
        ("bench/x.py", "import components", "imports components"),
        ("bootstrap/x.py", "import host", "imports host"),
        ("stt_server/x.py", "import engines", "imports engines"),
    ],
)
def test_a_wrong_import_is_named(file: str, line: str, wrong: str, tmp_path: Path) -> None:
    for room in (*ALLOWED, *FORBIDDEN):
        (tmp_path / room).mkdir()
        (tmp_path / room / "__init__.py").touch()
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(f"{line}\n")
    assert violations(tmp_path) == [f"{file} {wrong}"]


@pytest.mark.parametrize(
    ("file", "line"),
    [
        (
            "engines/vosk/__init__.py",
            "from declaration import x\nfrom . import y\nimport engines",
        ),
        ("engines/vosk/y.py", "from ..engine import Engine"),
        ("gpu/x.py", "import stack.declare, engines, declaration.problems"),
        ("components/config.py", "import pulumi\npulumi.Config('stt')"),
        ("components/command.py", "import pulumi_command"),
        ("components/x.py", "import roles, gpu, stack, engines, declaration, agent"),
    ],
)
def test_a_right_import_is_not(file: str, line: str, tmp_path: Path) -> None:
    """Here most rooms are not there, which is no error either."""
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(f"{line}\n")
    for room in ("declaration", "stack"):
        (tmp_path / room).mkdir(exist_ok=True)
        (tmp_path / room / "x.py").touch()
    assert violations(tmp_path) == []


#: The service that all is about, and a word.
ANYWAY = {"stt_server", "custom"}


def test_what_registers_resources_names_no_role_and_no_engine() -> None:
    names = "|".join(["ollama", *sorted({*ROLES, *ENGINES} - ANYWAY)])
    for file in (ROOT / "components").glob("*.py"):
        assert not re.findall(rf"(?i)\b(?:{names})", file.read_text()), file.name
