"""What a preview does grows as the number of machines does, and no faster."""

from __future__ import annotations

import cProfile
import json
import pstats
from collections import Counter
from pathlib import Path

import pytest
import yaml

from bench.simulated import write_stand_in
from declaration.connection import Connection
from declaration.source_files import ROOT
from host.read import READS
from host.reading import Reading
from tests.unit.program import Program, host_after, run

#: A second preview may call a function so much more often with twice the machines, and some more.
_TWICE, _MORE = 2.2, 40


def _infra(directory: Path, machines: int) -> str:
    names = [f"machine{number}" for number in range(machines)]
    roles = {name: {"roles": ["base_system", "ollama_server"]} for name in names}
    domain = {"trust_level": "semi-trusted", "subnet": "10.120.0.0/24", "machines": roles}
    file = directory / f"infra-{machines}.yml"
    file.write_text(yaml.safe_dump({"domains": {"lab": domain}}, sort_keys=False))
    return str(file)


def _calls(directory: Path, machines: int) -> tuple[Program, Counter[str]]:
    """A preview without changes, and how often it called each function of this project."""
    infra = _infra(directory, machines)
    first = run("gpu", infra=infra)
    live = host_after(first)
    profile = cProfile.Profile()
    profile.enable()
    second = run("gpu", live, first, infra=infra, preview=True)
    profile.disable()
    calls: Counter[str] = Counter()
    for (file, line, name), (_, count, *_rest) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]  # typeshed has no stats
        place = Path(file)
        if place.is_relative_to(ROOT) and not place.is_relative_to(ROOT / ".venv"):
            calls[f"{place.relative_to(ROOT)}:{line} {name}"] += count
    return second, calls


@pytest.mark.seldom
def test_no_function_is_called_more_than_twice_as_often_with_twice_the_machines(
    tmp_path: Path,
) -> None:
    _calls(tmp_path, 2)  # what is done once, and kept
    (few, before), (many, after) = (_calls(tmp_path, machines) for machines in (15, 30))
    assert (few.done, many.done) == ({}, {})
    assert len(many.commands) > 1.9 * len(few.commands)
    assert sum(before.values()) > 1000
    grown = {
        name: (before[name], count)
        for name, count in after.items()
        if count > _TWICE * before[name] + _MORE
    }
    assert grown == {}


@pytest.mark.parametrize("machines", [1, 40])
def test_the_client_is_called_once_for_each_machine(
    machines: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {"steps": {}, "answers": {}, "salt": ""}
    names = [f"machine{number}" for number in range(machines)]
    answers = {**dict.fromkeys(READS, "[]"), "resources": "{}", "volumes": "[]"}
    answers |= {f"machine lab {name}": json.dumps(said) for name in names}
    stand_in = write_stand_in(answers, "default", tmp_path / "stand-in")
    monkeypatch.setenv("PATH", f"{stand_in}:/usr/bin:/bin")
    live = Reading(Connection("local"), "default").result()
    assert sorted(live.machines) == sorted(("lab", name) for name in names)
    calls = (tmp_path / "stand-in" / "calls").read_text().splitlines()
    fixed = len(READS) + len(("volumes", "members", "list"))
    assert len(calls) == fixed + machines
