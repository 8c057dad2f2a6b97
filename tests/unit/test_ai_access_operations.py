"""`make ai-access`, and what the program calls between two domains' turns."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import operations.__main__
from declaration.topology import MachinePlan
from operations import ai_access, memory
from operations.host import OperationError
from stack.declare import Declaration
from tests.unit import three_domains
from tests.unit.three_domains import topology
from tests.unit.values import declared

REACH = ai_access.PROGRAM


class Incus:
    """The host: rules of the ACL (None: there is none), and machines that run."""

    def __init__(self, ingress: list[dict[str, str]] | None, running: set[str]) -> None:
        self.ingress, self.running = ingress, running

    def get(self, path: str) -> Any:
        if path == "/1.0/network-acls/net-ai-exclusive-ai?project=default":
            return None if self.ingress is None else {"ingress": self.ingress}
        name = path.removeprefix("/1.0/instances/").partition("?")[0]
        return {"status": "Running" if name in self.running else "Stopped"}


def host(
    monkeypatch: pytest.MonkeyPatch,
    *sources: str,
    running: tuple[str, ...] = (),
    gone: bool = False,
) -> None:
    """Have a host that lets in these sources."""
    ingress = None if gone else [{"source": each} for each in sources]
    monkeypatch.setattr(ai_access, "Client", lambda _: Incus(ingress, set(running)))


@pytest.fixture
def declaration(tmp_path: Path) -> Declaration:
    return declared(infra=topology(tmp_path), aiAccess="work")


def test_who_has_it_and_who_may_get_it_is_said(
    declaration: Declaration, monkeypatch: pytest.MonkeyPatch
) -> None:
    host(monkeypatch, "10.130.0.0/24")
    assert ai_access.report(declaration, "cpu") == [
        "AI access: work",
        "  home: make ai-access STACK=cpu DOMAIN=home",
        "    home -> ai/gpu-server: tcp 8000 (held: work has the AI access)",
        "  work: has it",
        "    work -> ai: tcp 8000, 11434",
    ]
    host(monkeypatch)
    last = ai_access.report(declaration, "cpu")[-1]
    assert last == "The host lets in: nobody. To change that: make up STACK=cpu"
    host(monkeypatch, gone=True)
    assert ai_access.report(declaration, "cpu")[-1] == "Nothing is built yet: make up STACK=cpu"


def test_who_has_it_is_said_of_the_stack_that_is_named(
    declaration: Declaration,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    host(monkeypatch, "10.130.0.0/24")
    asked: list[str] = []
    monkeypatch.setattr(operations.__main__, "read_stack", lambda _: declaration)
    monkeypatch.setattr(
        operations.__main__, "refuse_others", lambda _, stack, _id: asked.append(stack)
    )
    monkeypatch.setattr(sys, "argv", ["operations", "ai-access", "--stack", "cpu"])
    assert operations.__main__.main() == 0
    said = capsys.readouterr()
    assert said.err == "incus-stt: stack cpu\n" and asked == ["cpu"]
    assert said.out.startswith("AI access: work\n")

    def refuse(_: Declaration, stack: str, _id: str) -> None:
        raise OperationError(f"of another stack than {stack}")

    monkeypatch.setattr(operations.__main__, "refuse_others", refuse)
    with pytest.raises(OperationError, match="of another stack than cpu"):
        operations.__main__.main()
    assert capsys.readouterr().out == ""


def test_a_change_is_about_the_access_only(
    declaration: Declaration, monkeypatch: pytest.MonkeyPatch
) -> None:
    host(monkeypatch)
    expected = ["ai_access/hand-over", "ai/acl/ai", "ai/acl/ai-opened"]
    for domain in ("home", "nobody"):
        found = ai_access.targets(declaration, "cpu", domain)
        assert found == [f"**::{each}" for each in expected]
    with pytest.raises(OperationError, match=r'DOMAIN: "hme" .* Did you mean "home"'):
        ai_access.targets(declaration, "cpu", "hme")
    host(monkeypatch, gone=True)
    with pytest.raises(OperationError, match="First: make up STACK=cpu"):
        ai_access.targets(declaration, "cpu", "home")


def test_where_it_is_open_to_all_there_is_nothing_to_give() -> None:
    with pytest.raises(OperationError, match=r"global.ai_access is open in .*infra.cpu.yml"):
        ai_access.targets(declared(), "cpu", "home")
    assert "global.ai_access is open in" in ai_access.report(declared(), "cpu")[0]


def test_connections_are_cut_before_the_models_are_unloaded(
    declaration: Declaration, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[Any] = []
    said = [["gpu-server: STT was restarted"], True]

    def flush(_: Declaration, *, restart: bool) -> Any:
        assert restart
        done.append("flush")
        return said

    monkeypatch.setattr(ai_access, "cut", lambda _, *ends: done.append(ends))
    monkeypatch.setattr(ai_access, "flush", flush)
    assert ai_access.hand_over(declaration) == said[0]
    assert set(done[:-1]) == {
        ("10.120.0.0/24", ("10.110.0.1/32",)),
        ("10.130.0.0/24", ("10.110.0.0/24",)),
    }
    assert done[-1] == "flush"
    said[:] = [["gpu-server: STT is busy and kept its model: try again"], False]
    with pytest.raises(OperationError, match=r"no other domain is let in.* kept its model: gpu"):
        ai_access.hand_over(declaration)


def test_a_machine_of_another_domain_with_the_same_name_has_to_forget_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each answer counts, and `make vram` and `make flush` show each."""
    roles = ["base_system", "stt_server"]
    more = {"trust_level": "trusted", "machines": {"gpu-server": {"roles": roles}}}
    rule = {"from": "work", "to": "also/gpu-server", "ports": [8000]}
    file = three_domains.topology(tmp_path, three_domains.HOME, rule, also=more)
    declaration = declared(infra=file)
    answers = {"ai": "busy", "also": "unloaded"}
    loaded = {"ai": ["small"], "also": []}

    def run_program(_: Any, machine: MachinePlan, program: Path, words: list[str]) -> str:
        assert program == memory.PROGRAM
        if words[0] == "flush":
            return json.dumps({"stt": answers[machine.domain]})
        stt = {"answers": True, "models": loaded[machine.domain]}
        return json.dumps({"stt": stt, "ollama": None})

    monkeypatch.setattr(ai_access, "cut", lambda *_: None)
    monkeypatch.setattr(memory, "run_program", run_program)
    monkeypatch.setattr(memory, "on_host", lambda *_: "")
    with pytest.raises(OperationError, match="ai/gpu-server: STT is busy and kept its model"):
        ai_access.hand_over(declaration)
    lines, free = memory.flush(declaration)
    assert not free and lines[1] == "also/gpu-server: STT unloaded"
    shown = memory.report(declaration)[1:]
    assert [line.partition(": STT")[0] for line in shown] == ["ai/gpu-server", "also/gpu-server"]
    assert "small loaded" in shown[0] and shown[1].endswith("nothing loaded")


HOLDER, OTHER = ("10.110.0.1:8000", "10.110.0.1:11434"), ("10.110.0.1:8000",)


@pytest.mark.parametrize(
    ("answers", "right", "told"),
    [
        ({"desk": "connected", "tablet": "silent"}, True, []),
        ({"desk": "silent", "tablet": "silent"}, False, ["desk"]),
        ({"desk": "connected", "tablet": "connected"}, False, ["tablet"]),
        # Its machine answers: the way is open, and nothing listens there.
        ({"desk": "refused", "tablet": "silent"}, True, []),
        ({"desk": "connected", "tablet": "refused"}, False, ["tablet"]),
    ],
)
def test_both_sides_are_verified(
    declaration: Declaration,
    monkeypatch: pytest.MonkeyPatch,
    answers: dict[str, str],
    right: bool,
    told: list[str],
) -> None:
    def run_program(_: Any, machine: MachinePlan, program: Path, words: list[str]) -> str:
        assert (program, words[0]) == (REACH, "2")
        assert set(words[1:]) == set(HOLDER if machine.name == "desk" else OTHER)
        return json.dumps(dict.fromkeys(words[1:], answers[machine.name]))

    host(monkeypatch, running=("tablet", "desk", "laptop"))
    monkeypatch.setattr(ai_access, "run_program", run_program)
    monkeypatch.setattr(ai_access, "_STARTS_WITHIN", 0)
    lines, found = ai_access.verify(declaration)
    assert found is right
    assert [line.split()[1].partition("/")[2] for line in lines if ", and should" in line] == told


def test_without_a_machine_that_runs_it_is_said(
    declaration: Declaration, monkeypatch: pytest.MonkeyPatch
) -> None:
    host(monkeypatch)
    lines, right = ai_access.verify(declaration)
    assert right
    assert lines[1:] == [
        f"  {name}: not verified: no machine named in its rules is running"
        for name in ("home", "work")
    ]


def test_a_machine_tells_whom_it_reaches() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_server(("127.0.0.1", 0), backlog=0) as full,
        socket.create_connection(full.getsockname()),  # no more are taken
    ):
        with socket.create_server(("127.0.0.1", 0)) as other:
            ends = [each.getsockname()[1] for each in (listener, other, full)]
        words = [sys.executable, str(REACH), "0.2", *(f"127.0.0.1:{port}" for port in ends)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert list(json.loads(done.stdout).values()) == ["connected", "refused", "silent"]
