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

from backup import cli
from declaration import source_files
from declaration.connection import Connection
from declaration.problems import DeclarationError
from declaration.source_files import ROOT
from host import egress, reading
from host.client import HostError
from host.egress import Egress
from host.volume import exclusively
from lock import program
from operations.host import OperationError
from review import tree
from roles.ollama_server.machine import models
from tests.hanging import hanging

NOT_OURS = {"tests", ".venv", ".git"}


def sources(*patterns: str) -> Iterator[Path]:
    """The files of this project that match, without tests."""
    for pattern in patterns:
        for file in sorted(ROOT.rglob(pattern)):
            if not NOT_OURS & set(file.relative_to(ROOT).parts):
                yield file


#: `incus` where a command stands: at the begin of a line, or after what a command follows.
_INCUS = re.compile(r"(?:^|[|;&({!]|\b(?:if|then|else|do|until|while))\s*(?:\w+=\S* )*incus(?= )")


def endless_in_shell(text: str) -> list[str]:
    """The lines with a ``flock`` or an ``incus`` that waits without an end, and endless loops.

    A line that only notes a command for root (``plan_line``) runs nothing; where ``incus`` is a
    function of the script's own with a ``timeout``, each call has one.
    """
    lines = [line for line in text.splitlines() if not line.lstrip().startswith(("#", "plan_line"))]
    bounded = re.search(r"^incus\(\) { timeout ", text, re.MULTILINE)
    return [
        line
        for line in lines
        if re.search(r"\bflock (?!-n |-w )", line)
        or re.search(r"\b(until|while) .*; do sleep [\d.]+; done", line)
        or (_INCUS.search(line) and not bounded)
    ]


#: The calls that wait without an end for good reasons, by the file that has them.
ENDLESS: dict[str, dict[str, str]] = {
    "declaration/interrupt.py": {
        "child.wait()": "a part of `make up`, which a person watches and may end with Ctrl-C; what "
        "it waits for has deadlines of its own",
    },
    "host/upload.py": {"process.wait()": "a timer kills the process at its deadline"},
    "plugins/execute.py": {
        "process.wait()": "a Command's deadline is its own, as with Pulumi's plugin: a timer kills "
        "it where it has one",
    },
}
_RUNS = ("run", "call", "check_call", "check_output")


def endless_in_python(text: str) -> list[str]:
    """The calls that wait without an end: for a lock, or for a program."""
    tree = ast.parse(text)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    # What `asyncio.wait_for` is given has its deadline.
    waited = {id(call.args[0]) for call in calls if _name(call) == "asyncio.wait_for" and call.args}
    return [
        ast.unparse(call)
        for call in calls
        if id(call) not in waited and _is_endless(call, {each.arg for each in call.keywords})
    ]


def _name(call: ast.Call) -> str:
    return ast.unparse(call.func)


def _is_endless(call: ast.Call, given: set[str | None]) -> bool:
    name = _name(call)
    object_, _, method = name.rpartition(".")
    if name == "fcntl.flock":
        return "LOCK_NB" not in ast.unparse(call)
    if object_ == "subprocess" and method in _RUNS:
        return "timeout" not in given
    if method == "wait" and object_:
        return "timeout" not in given and not call.args
    if method == "communicate":
        return "timeout" not in given and len(call.args) < 2
    return False


def test_nothing_is_waited_for_without_an_end() -> None:
    shell, python = list(sources("*.sh", "pulumi-*")), list(sources("*.py"))
    for word in ("flock", "incus query"):
        assert any(word in file.read_text() for file in shell)
    assert {file.name: endless_in_shell(file.read_text()) for file in shell} == {
        file.name: [] for file in shell
    }
    found = {str(file.relative_to(ROOT)): endless_in_python(file.read_text()) for file in python}
    assert {name: set(calls) for name, calls in found.items() if calls} == {
        name: set(calls) for name, calls in ENDLESS.items()
    }


@pytest.mark.parametrize(
    ("line", "endless"),
    [
        ("  flock 9", True),
        ("flock -n 9 || { flock 9; }", True),
        ("flock -w 5 9", False),
        ("incus query /1.0", True),
        ("have incus && incus query /1.0", True),
        ("found=$(incus list --format csv)", True),
        ("if incus list; then", True),
        ("INCUS_REMOTE=far incus list", True),
        ("until incus admin waitready; do", True),
        ("timeout 5 incus list", False),
        ('long "importing" incus image import x', False),
        ("ask_incus list || die \"Try 'incus list'.\"", False),
        ("# incus list", False),
        ('plan_line "incus list | grep -q . || incus storage create"', False),
        ("until inside true; do sleep 0.2; done", True),
    ],
)
def test_a_wait_without_an_end_is_found_in_shell(line: str, endless: bool) -> None:
    assert endless_in_shell(line) == ([line] if endless else [])
    assert endless_in_shell(f'incus() {{ timeout 9 incus "$@"; }}\n{line}') == (
        [line] if endless and "incus" not in line else []
    )


@pytest.mark.parametrize(
    ("call", "endless"),
    [
        ("fcntl.flock(f, fcntl.LOCK_EX)", True),
        ("fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)", False),
        ("subprocess.run(argv, check=True)", True),
        ("subprocess.check_output(argv)", True),
        ("subprocess.run(argv, timeout=60)", False),
        ("process.wait()", True),
        ("process.wait(5)", False),
        ("process.communicate(text)", True),
        ("process.communicate(text, 5)", False),
        ("process.communicate(timeout=5)", False),
    ],
)
def test_a_wait_without_an_end_is_found_in_python(call: str, endless: bool) -> None:
    assert endless_in_python(call) == ([call] if endless else [])


def test_what_asyncio_waits_for_has_an_end() -> None:
    assert endless_in_python("await asyncio.wait_for(process.wait(), 5)") == []


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
    with exclusively("moves-lab", 0.1, "move a machine of lab"):
        said = r"did not move a machine of lab within 0 s\. See what it does \(ps aux\)"
        with (
            pytest.raises(HostError, match=said),
            exclusively("moves-lab", 0.1, "move a machine of lab"),
        ):
            pass
        with exclusively("moves-other", 0.1, "move a machine of other"):
            pass
    with exclusively("moves-lab", 0.1, "move a machine of lab"):
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


def test_what_a_backup_and_a_review_start_is_said_where_it_hangs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("git", "pulumi"):
        hanging(tmp_path / name)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(cli, "_DEADLINE", 0.2)
    monkeypatch.setattr(tree, "_GIT_DEADLINE", 0.2)
    monkeypatch.setattr(program, "DEADLINE", 0.2)
    # No PulumiError, which some take for an answer: that there is no such stack.
    with pytest.raises(OperationError, match=r"export did not end .*, then run this") as raised:
        cli.pulumi("stack", "export", cwd=tmp_path)
    assert not isinstance(raised.value, cli.PulumiError)
    with pytest.raises(
        tree.ReviewError, match=r"git read-tree did not end .*, then run this again"
    ):
        tree.git(tmp_path, "read-tree", "HEAD")
    with pytest.raises(
        program.HangsError, match=r"git was to fetch it and did not end .*then again"
    ):
        program.run(["git"], "git was to fetch it")


def test_a_read_of_the_host_ends_though_what_its_shell_started_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It holds the output open, and nobody kills it."""
    monkeypatch.setattr(reading, "DEADLINE", 0.2)
    monkeypatch.setattr(reading, "read_script", lambda *_: "sleep 60; :")
    begun = time.monotonic()
    with pytest.raises(HostError, match=r"no answer in 0\.2 s"):
        reading.read_live(Connection("local"), "default")
    assert time.monotonic() - begun < 30
