"""Who waits for another process waits for so many seconds, then says for whom, and what to do."""

from __future__ import annotations

import ast
import contextlib
import fcntl
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from declaration import source_files
from declaration.connection import Connection
from declaration.problems import DeclarationError
from declaration.source_files import ROOT
from host import egress
from host.client import HostError
from host.egress import Egress
from host.volume import alone
from roles.ollama_server.machine import models
from tests.hanging import hanging

NOT_OURS = {"tests", ".venv", ".git"}


def sources(*patterns: str) -> Iterator[Path]:
    """The files of this project that match, without tests."""
    for pattern in patterns:
        for file in sorted(ROOT.rglob(pattern)):
            if not NOT_OURS & set(file.relative_to(ROOT).parts):
                yield file


def endless_in_shell(text: str) -> list[str]:
    """The lines with a ``flock`` that waits without an end."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    return [line for line in lines if re.search(r"\bflock (?!-n |-w )", line)]


def endless_in_python(text: str) -> list[str]:
    """The calls of ``fcntl.flock`` that wait without an end."""
    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    found = [ast.unparse(call) for call in calls]
    return [each for each in found if each.startswith("fcntl.flock(") and "LOCK_NB" not in each]


def test_no_lock_is_waited_for_without_an_end() -> None:
    shell, python = list(sources("*.sh", "pulumi-*")), list(sources("*.py"))
    assert any("flock" in file.read_text() for file in shell)
    assert {file.name: endless_in_shell(file.read_text()) for file in shell} == {
        file.name: [] for file in shell
    }
    endless = {file: endless_in_python(file.read_text()) for file in python}
    assert not {file: found for file, found in endless.items() if found}


def test_a_wait_without_an_end_is_found() -> None:
    assert endless_in_shell("  flock 9\nflock -n 9 || { flock 9; }\nflock -w 5 9\n") == [
        *("  flock 9", "flock -n 9 || { flock 9; }")
    ]
    assert endless_in_python("fcntl.flock(f, fcntl.LOCK_EX)") == ["fcntl.flock(f, fcntl.LOCK_EX)"]


@contextlib.contextmanager
def held(place: Path) -> Iterator[None]:
    """A lock, as another process holds it."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture
def way(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Egress:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(egress, "_EDITING_DEADLINE", 0.1)
    monkeypatch.setattr(egress, "_FETCHING_DEADLINE", 0.1)
    monkeypatch.setattr(egress, "_CLOSING_DEADLINE", 0.1)
    monkeypatch.setattr(egress, "_LINGER", 0.1)
    return Egress(Connection("local"), "net-a")


def test_who_opens_a_bridge_waits_for_who_closes_it(way: Egress) -> None:
    said = r"is still closing the bridge net-a, after 0 s\. See what it does \(ps aux\)"
    with held(way._file("fetching")), pytest.raises(HostError, match=said), way.open():
        pass


def test_who_edits_a_bridge_waits_for_who_edits_it(way: Egress) -> None:
    said = r"is still editing the bridge net-a, after 0 s\. See what it does \(ps aux\)"
    with held(way._file("editing")), pytest.raises(HostError, match=said), way.editing():
        pass


def test_who_closes_a_bridge_waits_for_who_closes_it(way: Egress) -> None:
    said = r"is still waiting to close the bridge net-a, after 0 s\. See what it does \(ps aux\)"
    with held(way._file("closing")), pytest.raises(HostError, match=said):
        way.close_later()


def test_a_bridge_is_closed_where_who_fetches_hangs(
    way: Egress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would be open for ever: who closes it is the only one."""
    done: list[object] = []
    monkeypatch.setattr(Egress, "is_open", lambda self: True)
    monkeypatch.setattr(Egress, "_set", lambda self, *, opened: done.append(opened))
    monkeypatch.setattr(Egress, "cut", lambda self: done.append("cut"))
    with held(way._file("fetching")):
        closing = threading.Thread(target=way.close_later, daemon=True)
        closing.start()
        closing.join(30)
        assert done == [False, "cut"]


def test_who_edits_volumes_or_moves_machines_waits_for_another_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with alone("moves-lab", 0.1, "move a machine of lab"):
        said = r"did not move a machine of lab within 0 s\. See what it does \(ps aux\)"
        with (
            pytest.raises(HostError, match=said),
            alone("moves-lab", 0.1, "move a machine of lab"),
        ):
            pass
        with alone("moves-other", 0.1, "move a machine of other"):
            pass
    with alone("moves-lab", 0.1, "move a machine of lab"):
        pass


def test_who_pulls_models_waits_for_another_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(models, "LOCK_DEADLINE", 0.1)
    with held(tmp_path / models.LOCK):
        said = r"Another machine still pulls models to this volume, after 0 s\. Look at the other"
        with pytest.raises(SystemExit, match=said), models.only_one(str(tmp_path)):
            pass
    assert capsys.readouterr().err == "waiting for models that another machine pulls\n"


def test_git_that_hangs_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What counts without git is another list, and so another digest."""
    hanging(tmp_path / "git")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(source_files, "_GIT_DEADLINE", 0.2)
    begun = time.monotonic()
    with pytest.raises(DeclarationError, match=r"git did not list its files within 0 s\. See why"):
        source_files.tracked(tmp_path)
    assert time.monotonic() - begun < 30
