"""The agent as one file, and how it arrives in a machine."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import components.agent
from components.agent import agent_file, packed
from declaration.source_files import ROOT
from tests.unit.program import DIGEST, first_run


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's cache, and the file in it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    agent_file.cache_clear()
    yield agent_file()
    agent_file.cache_clear()


def test_its_name_has_the_digest_of_its_content(cache: Path) -> None:
    digest = hashlib.sha256(cache.read_bytes()).hexdigest()[:12]
    assert cache.name == f"agent-{digest}.pyz"
    packed.cache_clear()
    assert packed() == cache.read_bytes()  # the same bytes for the same sources


def test_another_source_is_another_file(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "agent" / "kinds").mkdir(parents=True)
    (tmp_path / "agent" / "kinds" / "more.py").write_text("A = 1\n")
    (tmp_path / "agent" / "entry.py").write_text("")
    monkeypatch.setattr(components.agent, "ROOT", tmp_path)
    packed.cache_clear()
    agent_file.cache_clear()
    assert agent_file().name != cache.name
    packed.cache_clear()


def test_agents_of_earlier_versions_go(cache: Path) -> None:
    old, recent = (cache.with_name(f"agent-{name}.pyz") for name in ("0" * 12, "1" * 12))
    for file in (old, recent):
        file.write_bytes(b"")
    os.utime(old, (0, 0))
    cache.unlink()
    agent_file.cache_clear()
    assert agent_file() == cache
    assert sorted(file.name for file in cache.parent.iterdir()) == sorted((recent.name, cache.name))


def test_python_runs_it_without_anything_installed(cache: Path, tmp_path: Path) -> None:
    argv = [sys.executable, "-IS", str(cache), "--root", str(tmp_path), "check"]
    done = subprocess.run(argv, capture_output=True, text=True, cwd="/")
    assert done.stdout == '{"steps": {}, "answers": {}, "salt": "", "cards": ""}\n', done.stderr


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A directory that stands for a machine: its ``incus`` runs what it is told, in there.

    Its bridge is open.
    """
    root = tmp_path / "machine"
    root.mkdir()
    (tmp_path / "bin").mkdir()
    client = tmp_path / "bin" / "incus"
    # incus --project ai-tools exec gpu-server -- sh -c SCRIPT sh FILE
    bridge = json.dumps({"config": {"security.acls": "net-ai-tools,net-ai-tools-install"}})
    client.write_text(
        f"#!/bin/sh\n[ \"$1\" != query ] || {{ echo '{bridge}'; exit; }}\n"
        f"shift 5\nscript=$(printf '%s' \"$3\" | sed 's#/opt/#{root}/opt/#g')\n"
        f'exec sh -c "$script" sh "{root}$5"\n'
    )
    client.chmod(0o755)
    return root


def arrive(machine: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    """Run the Command of the agent, with its file in a cache."""
    command = first_run("cpu").commands["ai-tools/gpu-server/agent"].inputs
    path = f"{machine.parent}/bin:{os.environ['PATH']}"
    environment = {"PATH": path, "XDG_CACHE_HOME": str(cache)}
    words = [*command["interpreter"], command["create"]]
    return subprocess.run(words, env=environment, capture_output=True, text=True)


def test_it_arrives_beside_the_old_one_which_then_goes(machine: Path, tmp_path: Path) -> None:
    place = machine / "opt" / "incus-stt"
    place.mkdir(parents=True)
    (place / "agent-000000000000.pyz").write_text("old")
    (place / "agent").symlink_to(place / "agent-000000000000.pyz")
    file = tmp_path / "cache" / "incus-stt" / f"agent-{DIGEST}.pyz"
    file.parent.mkdir(parents=True)
    file.write_text("NEW = True\n")  # Python runs it once, to compile it
    done = arrive(machine, tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    assert sorted(each.name for each in place.iterdir()) == ["agent", file.name]
    assert (place / "agent").read_text() == "NEW = True\n"
    assert (place / file.name).stat().st_mode & 0o777 == 0o644


def test_without_its_file_nothing_arrives(machine: Path, tmp_path: Path) -> None:
    """An empty agent would answer nothing, and say nothing about why."""
    assert arrive(machine, tmp_path / "nowhere").returncode
    assert not list(machine.rglob("*.pyz"))


def test_one_that_does_not_arrive_whole_leaves_nothing(machine: Path, tmp_path: Path) -> None:
    """As where the disk is full."""
    file = tmp_path / "cache" / "incus-stt" / f"agent-{DIGEST}.pyz"
    file.parent.mkdir(parents=True)
    file.write_text("half of it(")
    assert arrive(machine, tmp_path / "cache").returncode
    assert list((machine / "opt" / "incus-stt").iterdir()) == []


def test_every_kind_of_step_is_one_that_the_agent_knows() -> None:
    from agent.kinds import kinds

    for stack in ("dev", "cpu", "gpu"):
        for name, step in first_run(stack).steps.items():
            assert step.step_kind in kinds(), name
            assert json.loads(step.stdin)["kind"] == step.step_kind
    assert (ROOT / "agent" / "__main__.py").is_file()
