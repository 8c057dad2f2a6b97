"""A stack's file as the operations read it: as the program gets it from Pulumi."""

from __future__ import annotations

import re
import shutil
import subprocess
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from declaration.problems import DeclarationError
from declaration.source_files import ROOT
from declaration.stack_file import read_stack_file
from engines import ENGINES
from host.client import Client, HostError
from operations import memory, stack, status
from operations.host import OperationError
from operations.measure import measure, models_to_measure, table
from operations.targets import key_targets, stt_targets
from roles import ROLES
from stack.declare import declare
from tests.unit.program import run
from tests.unit.values import DEFAULTS, STACKS, declared


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(ROOT / "Pulumi.yaml", tmp_path)
    shutil.copy(STACKS / "infra.cpu.yml", tmp_path)
    (tmp_path / "stacks").mkdir()
    monkeypatch.setattr(stack, "ROOT", tmp_path)
    return tmp_path


def test_what_pulumi_config_set_writes_is_read(root: Path) -> None:
    """It quotes every value, and a secret is of no concern here."""
    (root / "stacks" / "Pulumi.mine.yaml").write_text(
        'config:\n  stt:infra: infra.cpu.yml\n  stt:port: "8123"\n  stt:keepModels: "false"\n'
        "  stt:language: fr\n  stt:apiKey:\n    secure: v1:abc\n"
        "  stt:ollama: {port: 11500}\n"
    )
    declaration = stack.read_stack("mine")
    settings = declaration.settings
    assert (settings.port, settings.keepModels, settings.language) == (8123, False, "fr")
    assert (settings.ollama.port, settings.apiKey) == (11500, "")
    assert [service.model.name for service in declaration.services] == ["small"]


def test_a_stack_that_is_not_there_is_said(root: Path) -> None:
    with pytest.raises(DeclarationError, match="there is no stack nowhere"):
        stack.read_stack("nowhere")


def test_make_stt_is_about_the_role_and_what_it_needs() -> None:
    targets = stt_targets(declared())
    for resource in ("ai-tools/project", "ai-tools/gpu-server/agent", "stack/id", "stt_server/key"):
        assert f"**::{resource}" in targets
    assert "**::ai-tools/gpu-server/stt_server/*" in targets
    assert not any("webui" in target or "ollama" in target for target in targets)
    with pytest.raises(OperationError, match="stt:enabled is false"):
        stt_targets(declared(enabled=False))
    assert "**::stt_server/key" not in stt_targets(declared(authentication="none"))
    assert "**::stt_server/client/tv" in stt_targets(declared(clients=["tv"]))


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", [path.suffixes[0][1:] for path in STACKS.glob("Pulumi.*.yaml")])
def test_make_stt_names_whatever_its_targets_need(name: str, root: Path) -> None:
    """Pulumi refuses targets that depend on what is new and no target."""
    shutil.copytree(STACKS, root / "stacks", dirs_exist_ok=True)
    values = {**DEFAULTS, **read_stack_file(root, name).values}
    declaration = declare(values, ROLES, ROOT)
    targets = [each.removeprefix("**::") for each in stt_targets(declaration)]
    program = run(name)

    def is_target(name: str) -> bool:
        return any(fnmatch(name, target) for target in targets)

    assert any(map(is_target, program.commands))
    for each, command in program.commands.items():
        if is_target(each):
            assert not [need for need in command.dependencies if not is_target(need)], each


def test_a_key_of_the_operator_s_own_is_not_rotated(root: Path) -> None:
    file = root / "stacks" / "Pulumi.mine.yaml"
    file.write_text("config: {stt:infra: infra.cpu.yml}\n")
    assert "--replace=**::stt_server/key" in key_targets(root, "mine")
    file.write_text("config: {stt:apiKey: {secure: v1:abc}}\n")
    with pytest.raises(OperationError, match=r"uses the key of stt:apiKey.*config rm stt:apiKey"):
        key_targets(root, "mine")
    file.write_text("config: {stt:authentication: none}\n")
    with pytest.raises(OperationError, match=r"no key to rotate.*stt:authentication: none"):
        key_targets(root, "mine")


def test_the_key_of_one_client_is_rotated(root: Path) -> None:
    file = root / "stacks" / "Pulumi.mine.yaml"
    file.write_text("config: {stt:clients: [phone, tv]}\n")
    targets = key_targets(root, "mine", "tv")
    assert "--replace=**::stt_server/client/tv" in targets
    assert not any("phone" in each or each.endswith("/secrets") for each in targets)
    assert not any("client" in each for each in key_targets(root, "mine"))
    with pytest.raises(OperationError, match=r"does not have fridge. It has: phone, tv. Name one"):
        key_targets(root, "mine", "fridge")
    file.write_text("config: {}\n")
    with pytest.raises(OperationError, match=r"does not have tv. It has: none"):
        key_targets(root, "mine", "tv")


def test_what_measures_models_is_not_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs in the engine's Python, with all that its packages bring."""
    called: list[tuple[str, ...]] = []

    def call(_: Client, *words: str, **__: Any) -> str:
        called.append(words)
        return ""

    monkeypatch.setattr(Client, "call", call)
    monkeypatch.setattr("operations.measure.flush", lambda _: [[]])
    measure(declared(), "tiny")
    [words] = called
    become = words[3 : words.index("env")]
    assert become == ("setpriv", "--reuid=stt", "--regid=stt", "--init-groups", "--")
    assert words[-1] and "tiny" in words and any(word.endswith("/bin/python") for word in words)


@pytest.mark.parametrize("engine", [name for name in ENGINES if name != "custom"])
def test_models_are_measured_with_every_engine_that_has_ctranslate2(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Client, "call", lambda *_, **__: "")
    monkeypatch.setattr("operations.measure.flush", lambda _: [[]])
    stack = declared(engine=engine, model="", quantization="auto")
    chosen = stack.with_compute_types([stack.engine.compute_types["cpu"][0]])
    if ENGINES[engine].ctranslate2:
        assert measure(chosen, "tiny")
        return
    wanted = f"stt:engine is {engine}, and models are measured with speaches or faster-whisper"
    with pytest.raises(OperationError, match=wanted):
        measure(chosen, "tiny")


def test_what_is_measured_is_the_stack_s_model_or_what_is_asked() -> None:
    assert models_to_measure("small", "") == ["small"]
    assert models_to_measure("my-own", "") == ["tiny"]
    assert models_to_measure("small", "tiny base") == ["tiny", "base"]
    with pytest.raises(Exception, match="MODELS: huge cannot be measured"):
        models_to_measure("small", "huge")


def test_the_table_stands_beside_the_catalogue() -> None:
    said = [
        "noise",
        '{"model": "large-v3-turbo", "type": "float16", "mib": 3100, "rtfx": 100}',
        '{"model": "large-v3-turbo", "type": "int8", "error": "out of memory"}',
    ]
    head, measured, failed = table(said, "cuda")
    assert head.startswith("model")
    assert "3100 MiB" in measured and "3717 MiB" in measured and "measured by" in measured
    assert "out of memory" in failed


@pytest.mark.parametrize(
    ("found", "said", "told"),
    [
        ({"status": "Stopped"}, "Instance is not running", "it is stopped: make up starts it"),
        ({"status": "Frozen"}, "Instance is frozen", "it is frozen: make up starts it"),
        (None, "Instance not found", "it is not there yet: make up builds it"),
        # It runs: what the program said is all there is to say, and up changes nothing.
        ({"status": "Running"}, "no space left", "Error: no space left"),
        (HostError("no daemon"), "no daemon", "Error: no daemon"),
    ],
)
def test_a_machine_that_cannot_be_asked_is_named_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, found: Any, said: str, told: str
) -> None:
    """By `make vram`, `make flush` and `make status`."""

    def run(_: Client, *words: str, **__: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(words, 255, "", f"Error: {said}\n")

    def get(_: Client, path: str, **__: Any) -> Any:
        assert re.fullmatch(r"/1.0/instances/(gpu-server|webui)\?project=ai-tools", path)
        if isinstance(found, HostError):
            raise found
        return found

    monkeypatch.setattr(Client, "run", run)
    monkeypatch.setattr(Client, "get", get)
    monkeypatch.setattr(memory, "on_host", lambda *_: "")
    for verb in (memory.report, memory.flush):
        with pytest.raises(OperationError) as error:
            verb(declared())
        assert str(error.value) == f"ai-tools/gpu-server: {told}"
    assert {each["error"] for each in status.ask(declared()).values()} == {told}
