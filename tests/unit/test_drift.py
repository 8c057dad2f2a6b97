"""What the drift of a stack covers, and how a Command carries it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from components.drift import all_facts, differences
from components.facts import Fact
from components.live import Live, parse_live, read_script
from components.roles import ROLES

from declaration.difference import Difference
from declaration.settings import Connection
from stack.declare import Declaration, declare
from tests.e2e.project import ROOT
from tests.unit.program import KEYS, run
from tests.unit.test_settings import CPU

INSTANCE = "ai-tools/gpu-server/instance"


@pytest.fixture(autouse=True)
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the program warns of; there is no Pulumi engine to log to."""
    said: list[str] = []
    monkeypatch.setattr("pulumi.log.warn", said.append)
    return said


@pytest.fixture
def declaration(monkeypatch: pytest.MonkeyPatch) -> Declaration:
    monkeypatch.chdir(ROOT)
    return declare({**CPU, "ollama": {"models": ["tiny"]}}, ROLES, ROOT)


T = TypeVar("T")


def outside(work: Callable[[], T]) -> T:
    """A function's result without a Pulumi program; what secrets hold is not asked for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pulumi.Output.concat", lambda *_: "")
        return work()


def test_every_command_answers_for_something_on_the_host(
    declaration: Declaration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a host with nothing, everything is missing: keys and verification are no state."""
    found = outside(lambda: differences(declaration, Live([], {}, {}, ["default"])))
    commands = run(monkeypatch, "cpu", ollama={"models": ["tiny"]}).commands
    verified = {name for name in commands if name.endswith("/verify")}
    assert set(found) == set(commands) - KEYS - verified


def test_a_machine_that_does_not_answer_is_left_alone(
    declaration: Declaration, said: list[str]
) -> None:
    machine = {"status": "Running", "config": {}, "devices": {}, "profiles": []}
    objects = {("instance", "ai-tools", "gpu-server"): machine}
    live = Live([], {}, {}, ["default"], objects=objects)
    found = outside(lambda: differences(declaration, live))
    assert INSTANCE in found
    assert not any(name.startswith("ai-tools/gpu-server/stt") for name in found)
    assert "gpu-server did not answer" in said[0]


def test_answers_that_were_cut_off_are_no_answers() -> None:
    facts = [Fact("a", "", ""), Fact("b", "", "")]

    def live(text: str) -> Live:
        empty: dict[str, Any] = {key: [] for key in ("projects", "networks", "pools", "profiles")}
        rest = {"resources": {}, "instances": [], "volumes": [], "machines": {"d/m": text}}
        rest |= {"nvidia_smi": ""}
        return parse_live(empty | rest, {("d", "m"): facts})

    assert live("YQ==  end ").answers == {("d", "m"): ["YQ==", ""]}
    assert live("YQ== ").answers == live("").answers == {}


def test_every_fact_is_asked_once(declaration: Declaration) -> None:
    facts = outside(lambda: all_facts(declaration))
    script = read_script(Connection("local"), "default", facts, {})
    assert script.count("| ask") == sum(map(len, facts.values()))


def test_a_difference_is_in_the_environment_and_its_absence_ignores_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drifted = {INSTANCE: [Difference("config.limits.memory", "4GiB", "8GiB")]}
    commands = run(monkeypatch, "dev", drifted=drifted).commands
    drift = commands[INSTANCE].inputs["environment"]["DRIFT"]
    assert drift.startswith("config.limits.memory: 4GiB -> 8GiB\n@20")
    assert "environment" not in commands[INSTANCE].request.ignoreChanges
    for name, command in commands.items():
        if name != INSTANCE:
            assert "environment" in command.request.ignoreChanges, name
            assert "environment" not in command.inputs, name
