"""The cards of a machine, as nvidia-smi tells of them there."""

from __future__ import annotations

import time
from typing import Any

import pytest

import agent.__main__ as cli
from agent import cards

ROW = "00000000:01:00.0, NVIDIA GeForce RTX 3060, 12288, 8.6, 560.35.03"


def nvidia_smi(agent: Any, body: str) -> None:
    """The machine has a card, and this is its program."""
    program = agent.path(cards.NVIDIA_SMI)
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)


def test_a_machine_without_a_card_tells_of_none(agent: Any) -> None:
    assert cli.check(agent.machine)["cards"] == ""


def test_a_machine_tells_of_its_cards_as_the_host_does(agent: Any) -> None:
    asked = f"--query-gpu={cards.NVIDIA_SMI_FIELDS} --format=csv,noheader,nounits"
    nvidia_smi(agent, f'[ "$*" = "{asked}" ] && echo "{ROW}"')
    assert cli.check(agent.machine)["cards"] == f"{ROW}\n"


@pytest.mark.parametrize("body", [f"echo '{ROW}'; exit 9", "sleep 60", "kill -9 $$"])
def test_a_card_that_is_broken_stops_no_check(
    agent: Any, body: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cards, "_DEADLINE", 0.5)
    nvidia_smi(agent, body)
    began = time.monotonic()
    assert cli.check(agent.machine)["cards"] == ""
    assert time.monotonic() - began < 30
