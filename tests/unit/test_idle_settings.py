"""A setting changes something, or the operator is told that it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from declaration.describe import describe
from declaration.settings import Settings
from declaration.source_files import ROOT
from declaration.stack_file import SECRETS
from engines import ENGINES
from roles import ROLES
from stack.declare import declare
from stack.idle_settings import RULES, idle_settings
from tests.unit.program import Program, host_after, run
from tests.unit.values import CPU, NOT_OF_UP, PEM, changes


@pytest.fixture(scope="module")
def before() -> Program:
    """The stack ``cpu`` without the STT service, applied once."""
    return run("cpu", enabled=False)


@pytest.mark.sweep
@pytest.mark.parametrize(("setting", "value"), changes().items(), ids=list(changes()))
def test_a_setting_changes_something_or_it_is_said(
    setting: str, value: Any, before: Program, tmp_path: Path
) -> None:
    """Every setting of docs/changes.md, with its example; test_changes.py has the service on."""
    if f"stt:{setting}" in NOT_OF_UP:
        return
    if setting == "caBundle":
        value = str(tmp_path / "ca.pem")
        Path(value).write_text(PEM)
    group, _, key = setting.partition(".")
    if setting == "enabled":
        value = True
    secret = setting in SECRETS
    settings: dict[str, Any] = {"enabled": False}
    settings[group] = {key: value} if key else value
    after = run("cpu", host_after(before), before, secret=secret, **settings)
    assert after.acts(before) != after.calls_idle(f"stt:{setting}")


def told(**settings: Any) -> list[str]:
    values = {**CPU, "model": "", "quantization": "auto", **settings}
    return [str(problem) for problem in idle_settings(declare(values, ROLES, Path()), ROLES)]


@pytest.mark.parametrize("engine", [name for name in ENGINES if name != "custom"])
@pytest.mark.parametrize("source", ["owhisper", "python", "speaches", "vosk", "models"])
def test_a_source_is_of_the_engines_that_take_from_it(engine: str, source: str) -> None:
    found = told(engine=engine, sources={source: "https://mirror.example/x"})
    wanted = f"stt:sources.{source}: has no effect: the engine {engine} takes nothing from there."
    assert found == ([] if source in ENGINES[engine].sources else [wanted])


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_of_one_s_own_has_no_limits(engine: str) -> None:
    light = ROOT / "tests" / "e2e" / "light_engine"
    custom = {"install": str(light / "install.sh"), "unit": str(light / "engine.service")}
    own = {"engine": engine, "model": "mine", "custom": custom} if engine == "custom" else {}
    wanted = "stt:limits.waiting: has no effect: the engine custom has no such limits."
    found = told(**{"engine": engine, "limits": {"waiting": 8}, **own})
    assert found == ([wanted] if engine == "custom" else [])


def test_the_default_is_never_said() -> None:
    assert told() == []


def test_a_role_that_no_machine_has_makes_its_settings_idle(tmp_path: Path) -> None:
    file = tmp_path / "infra.yml"
    file.write_text(
        "domains: {lab: {trust_level: trusted, machines: {box: {roles: [base_system]}}}}\n"
    )
    others = {"ollama": {"port": 1}, "webui": {"signup": True}}
    found = told(infra=str(file), port=8001, snapshots={"schedule": "@daily"}, **others)
    assert found == [
        "stt:port: has no effect: no machine has the role stt_server.",
        "stt:snapshots.schedule: has no effect: no volume holds data.",
        "stt:ollama.port: has no effect: no machine has the role ollama_server.",
        "stt:webui.signup: has no effect: no machine has the role open_webui.",
    ]


@pytest.mark.parametrize("stt_url", ["https://stt.example.com/v1", None])
def test_a_service_elsewhere_is_tried_by_open_webui(tmp_path: Path, stt_url: str | None) -> None:
    file = tmp_path / "infra.yml"
    machines = "machines: {box: {roles: [base_system, open_webui]}}"
    file.write_text(f"domains: {{lab: {{trust_level: trusted, {machines}}}}}\n")
    check = {"recording": "recordings/hello_world.wav", "words": "hello world"}
    found = told(infra=str(file), language="en", check=check, webui={"stt_url": stt_url})
    names = [] if stt_url else ["language", "check.recording", "check.words"]
    why = "has no effect: no machine has the role stt_server."
    assert sorted(found) == sorted(f"stt:{name}: {why}" for name in names)


def test_a_model_directory_needs_no_hub() -> None:
    found = told(model="./models/tiny-digits", sources={"models": "https://mirror.example"})
    assert found == ["stt:sources.models: has no effect: stt:model is a directory."]


def test_the_rules_are_of_settings_that_exist() -> None:
    assert set(RULES) <= {each.key for each in describe(Settings)}
