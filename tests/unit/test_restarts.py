"""What a preview says of a restart of the STT service whose length no figure tells."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agent.difference import Difference
from declaration.source_files import ROOT
from engines import ENGINES
from roles import ROLES
from stack.declare import declare
from tests.unit.program import Program, host_after, run, steps_of, with_differences
from tests.unit.values import CPU

SERVICE = "ai-tools/gpu-server/stt_server/service"
LIGHT = ROOT / "tests" / "e2e" / "light_engine"
OWN = {"install": str(LIGHT / "install.sh"), "unit": str(LIGHT / "engine.service")}
CUSTOM: dict[str, Any] = {"engine": "custom", "model": "mine", "custom": OWN}
OWHISPER: dict[str, Any] = {"engine": "owhisper", "model": "tiny"}


def notes(before: Program, **settings: Any) -> list[str]:
    """What the next preview says of restarts."""
    said = run("cpu", host_after(before), before, preview=True, **settings).log
    return [line for line in said if "the STT service restarts" in line]


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("own", "words"),
    [
        (CUSTOM, "requests are refused meanwhile (0.5 s the last time)"),
        (OWHISPER, "requests wait (0.5 s the last time), and none is refused"),
    ],
    ids=["custom", "owhisper"],
)
def test_a_change_says_what_the_last_start_took(own: dict[str, Any], words: str) -> None:
    before = run("cpu", **own)
    assert notes(before, **own) == []
    wanted = [f"gpu-server: the STT service restarts: {words}"]
    assert notes(before, **own, language="de") == wanted
    # Drift restarts it, too, also of its secrets.
    for part in ("service", "secrets"):
        step = SERVICE.replace("/service", f"/{part}")
        drifted = with_differences(host_after(before), step, Difference("x", "a", "b"))
        assert wanted[0] in run("cpu", drifted, before, preview=True, **own).log
    # Without what it took in the state, nobody knows.
    service = replace(before.registered[SERVICE], stdout="{}")
    unknown = replace(before, registered={**before.registered, SERVICE: service})
    (line,) = notes(unknown, **own, language="de")
    assert line == wanted[0].replace("0.5 s the last time", "how long is not known")


def test_another_engine_s_time_is_not_taken_for_its_own() -> None:
    before = run("cpu")
    refused = "gpu-server: the STT service restarts: requests are refused meanwhile"
    assert notes(before, language="de") == [], "docs/changes.md has the figure"
    assert notes(before, **CUSTOM) == [f"{refused} (how long is not known)"]
    (line,) = notes(run("cpu", **CUSTOM))
    assert line == f"{refused} ({ENGINES['speaches'].restart})"


@pytest.mark.parametrize("engine", ENGINES)
def test_the_state_tells_the_engine_by_its_unit(engine: str) -> None:
    own = {"custom": OWN} if engine == "custom" else {}
    model = "mine" if engine == "custom" else ""
    declaration = declare(
        {**CPU, "engine": engine, "model": model, "quantization": "auto", **own}, ROLES, ROOT
    )
    service: Any = steps_of(declaration)[SERVICE].spec
    assert service.unit == engine
    assert bool(service.socket) is ENGINES[engine].holds_port
