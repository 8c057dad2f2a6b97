"""The state before a run, as the engine tells it."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pulumi
import pytest

from components.state import read_state

URN = "urn:pulumi:a::stt::command:local:Command::stack/id"
BUSY = "invocation returned an error: failed to load checkpoint: EOF"


def answering(monkeypatch: pytest.MonkeyPatch, *said: str) -> list[str]:
    """An engine that says these errors first; the names that it was asked for."""
    asked: list[str] = []

    def invoke(_: str, arguments: dict[str, Any]) -> Any:
        asked.append(arguments["stackName"])
        if len(asked) <= len(said):
            raise Exception(said[len(asked) - 1])  # what the SDK raises
        return SimpleNamespace(value={"outputs": {URN: {"outputs": {"stdout": "an-id"}}}})

    monkeypatch.setattr(pulumi.runtime, "invoke", invoke)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    for name in ("organization", "project", "stack"):
        monkeypatch.setattr(pulumi, f"get_{name}", lambda name=name: name)
    return asked


def test_a_file_that_the_engine_writes_just_then_is_read_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = answering(monkeypatch, BUSY, BUSY)
    assert read_state().stack == "an-id"
    assert asked == ["organization/project/stack"] * 3


@pytest.mark.parametrize(("said", "times"), [(BUSY, 20), ("no such stack", 1)])
def test_other_errors_and_one_that_stays_are_told(
    monkeypatch: pytest.MonkeyPatch, said: str, times: int
) -> None:
    asked = answering(monkeypatch, *[said] * 30)
    with pytest.raises(Exception, match=said):
        read_state()
    assert len(asked) == times
