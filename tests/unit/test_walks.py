"""The walks of docs/contributing.md lead to steps: their code, as it stands there, is run here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from textwrap import dedent
from types import ModuleType

import pytest

from agent.kinds.service import Service
from declaration.infra import Machine
from declaration.source_files import ROOT, tracked
from declaration.step import Step
from engines.engine import Engine
from engines.models import resolve_model
from engines.service import EngineContext
from roles.role import Context, Role
from tests.unit.values import declared

PAGE = (ROOT / "docs" / "contributing.md").read_text()


def blocks(section: str) -> list[str]:
    """The Python code of a section, in its order."""
    text = PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return [dedent(each) for each in re.findall(r"^ *```python\n(.*?)^ *```$", text, re.S | re.M)]


def run(name: str, code: str, patch: pytest.MonkeyPatch) -> ModuleType:
    """Code as the module ``name``."""
    module = ModuleType(name)
    patch.setitem(sys.modules, name, module)  # dataclasses and later blocks look for it there
    exec(compile(code, name, "exec"), vars(module))
    return module


def service_of(steps: Sequence[Step]) -> Service:
    [service] = [step.spec for step in steps if isinstance(step.spec, Service)]
    return service


def test_a_new_role(monkeypatch: pytest.MonkeyPatch) -> None:
    [code] = blocks("A new role")
    role = run("roles.greeting", code, monkeypatch).ROLE
    assert isinstance(role, Role)
    machine = next(declared().topology.machines)
    context = Context(declared(), machine)
    steps = role.steps(context)
    assert [step.part for step in steps] == ["greeting/user", "greeting/service"]
    assert all(step.text() for step in steps)
    assert service_of(steps).all_files()[-1].content == f"Hello from {machine.name}\n"
    assert role.outputs(context) == {"greeting_url": f"http://{machine.address}:8080"}
    assert Machine(roles=[role.name]).roles == ["greeting"]


def test_a_new_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server, service, description = blocks("A new engine")
    place = tmp_path / "engines" / "parrot" / "machine"
    place.mkdir(parents=True)
    (place / "server.py").write_text(server)
    compile(server, "server.py", "exec")
    monkeypatch.chdir(tmp_path)
    run("engines.parrot", "", monkeypatch)
    run("engines.parrot.service", service, monkeypatch)
    engine = run("engines.parrot", description, monkeypatch).ENGINE
    assert isinstance(engine, Engine)
    model = resolve_model(engine.default_models["cpu"], engine)
    machine = next(declared().topology.machines)
    context = EngineContext(declared().settings, "cpu", model, "float32", False, machine.resource)
    made = engine.service(context)
    assert [step.part for step in made.steps] == ["stt_server/server"]
    assert set(made.needs) == {made.steps[0].name, context.user_step}
    # Who has no socket must not say that requests wait.
    assert engine.holds_port is bool(made.service.socket)
    assert made.service.variables["STT_MODEL"] == "polly"
    assert made.service.sections["Service"]["ExecStart"].endswith("/server.py")  # type: ignore[union-attr]
    # It runs: what the server reads is what the service sets.
    assert set(re.findall(r'os\.environ\["(\w+)"\]', server)) == set(made.service.variables)


#: Tests that go through every engine.
MODULES = ("idle_settings", "restarts", "units", "steps")


@pytest.mark.sweep
def test_what_the_walks_add_passes_the_tests(tmp_path: Path) -> None:
    """In a copy of the tree that has both folders, after `make generate`."""
    if not (names := tracked(ROOT)):
        pytest.skip("without git, what belongs to the tree is not known")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tmp_path / name)
    server, service, description = blocks("A new engine")
    [role] = blocks("A new role")
    for name, code in (
        ("engines/parrot/machine/server.py", server),
        ("engines/parrot/service.py", service),
        ("engines/parrot/__init__.py", description),
        ("roles/greeting/__init__.py", role),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(code)
    environment = {key: value for key, value in os.environ.items() if "PYTEST" not in key}

    def python(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    python("-m", "roles.document")
    for page in ("engines", "changes", "settings", "topology"):
        name = "greeting" if page == "topology" else "parrot"
        assert name in (tmp_path / "docs" / f"{page}.md").read_text(), page
    modules = [f"tests/unit/test_{name}.py" for name in MODULES]
    modules += ["tests/unit/test_generate.py", "tests/unit/test_review.py"]
    which = "parrot or is_what_the_code_says or has_words"
    words = ("-p", "no:cacheprovider", "-m", "not sweep", "-k", which)
    said = python("-m", "pytest", "-v", *words, *modules)
    for name in MODULES:
        assert re.search(rf"test_{name}\.py::.*parrot.* PASSED", said), name


def test_a_new_setting() -> None:
    """Its field and its use are still where the walk says."""
    field, use = blocks("A new setting")
    assert field.startswith("parallel: ")
    assert use == '"OLLAMA_NUM_PARALLEL": str(settings.ollama.parallel),\n'
    role = (ROOT / "roles" / "ollama_server" / "__init__.py").read_text()
    assert '"OLLAMA_KEEP_ALIVE": settings.ollama.keepAlive,\n' in role
    assert "class Ollama(" in (ROOT / "declaration" / "settings.py").read_text()
    assert "BAD: " in (ROOT / "tests" / "unit" / "test_settings.py").read_text()
