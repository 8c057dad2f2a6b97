"""host/egress.py: the way out of a bridge is open as long as somebody fetches, and no longer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from declaration.connection import Connection
from host import egress
from host.client import HostError
from host.egress import Egress, run_open

OPEN, CLOSED = ("net-a,net-a-install", ""), ("net-a", "no-resolv")


class Incus:
    """What the client does, and the bridge as it is."""

    def __init__(self) -> None:
        self.config: dict[str, str] | None = {"ipv4.address": "10.9.9.254/24"}
        self.done: list[tuple[str, str]] = []
        self.set(CLOSED)

    def set(self, values: tuple[str, str]) -> None:
        assert self.config is not None
        self.config |= dict(zip(("security.acls", "raw.dnsmasq"), values, strict=True))

    def get(self, path: str) -> Any:
        assert path == "/1.0/networks/net-a?project=default"
        return None if self.config is None else {"config": self.config}

    def call(self, *words: str, project: str) -> str:
        assert words[:3] == ("network", "set", "net-a")
        acls, dns = (word.partition("=")[2] for word in words[3:])
        self.done.append((acls, dns))
        self.set((acls, dns))
        return ""


@pytest.fixture
def incus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Incus:
    fake = Incus()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(egress, "Client", lambda connection: fake)
    monkeypatch.setattr(egress, "_LINGER", 0.1)
    monkeypatch.setattr(Egress, "_cut", lambda self: fake.done.append(("cut", "")))
    return fake


@pytest.fixture
def way(incus: Incus, monkeypatch: pytest.MonkeyPatch) -> Egress:
    """The bridge; what closes it is a thread here."""
    found = Egress(Connection("local"), "net-a")
    closing = threading.Thread(target=lambda: Egress(Connection("local"), "net-a").close_later())
    monkeypatch.setattr(Egress, "_close_later", lambda self: closing.start())
    return found


def wait_until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_it_is_open_meanwhile_and_then_closed(way: Egress, incus: Incus) -> None:
    with way.open():
        assert incus.done == [OPEN]
        assert way.is_used() and way.is_open()
    wait_until(lambda: len(incus.done) == 3)
    assert incus.done == [OPEN, CLOSED, ("cut", "")]
    assert not way.is_open()
    wait_until(lambda: not way.is_used())


def test_two_who_fetch_open_it_once_and_the_last_one_closes(way: Egress, incus: Incus) -> None:
    other = Egress(way.connection, "net-a")
    with way.open():
        with other.open():
            pass
        time.sleep(0.4)  # longer than it lingers
        assert incus.done == [OPEN]
    with other.open():  # the next step, at once
        assert incus.done == [OPEN]
    wait_until(lambda: len(incus.done) == 3)
    assert incus.done == [OPEN, CLOSED, ("cut", "")]


def test_who_looks_leaves_nothing_behind(way: Egress, tmp_path: Path) -> None:
    assert not way.is_used() and not way.is_open()
    assert list(tmp_path.iterdir()) == []


def test_it_is_closed_once_incus_answers_again(
    way: Egress, incus: Incus, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed, failed = incus.call, threading.Event()

    def call(*words: str, project: str) -> str:
        if CLOSED[1] in words[-1] and not failed.is_set():
            failed.set()
            raise HostError("the daemon has just been restarted")
        return closed(*words, project=project)

    monkeypatch.setattr(incus, "call", call)
    with way.open():
        pass
    wait_until(lambda: len(incus.done) == 3)
    assert failed.is_set() and incus.done == [OPEN, CLOSED, ("cut", "")]


def test_what_needs_no_internet_opens_nothing(way: Egress, incus: Incus) -> None:
    assert run_open(way, "exit 7", unless="true") == 7
    assert incus.done == []
    assert run_open(way, "exit 7", unless="false") == 7
    wait_until(lambda: len(incus.done) == 3)


def test_the_bridge_keeps_its_other_acls(way: Egress, incus: Incus) -> None:
    incus.set(("net-a,net-a-exclusive-ai", "no-resolv"))
    with way.open():
        assert incus.done == [("net-a,net-a-exclusive-ai,net-a-install", "")]
    wait_until(lambda: len(incus.done) == 3)
    assert incus.done[1] == ("net-a,net-a-exclusive-ai", "no-resolv")


def test_a_command_s_status_is_passed_on(way: Egress, incus: Incus) -> None:
    assert run_open(way, "exit 7") == 7
    wait_until(lambda: len(incus.done) == 3)


def test_a_command_that_never_ends_is_killed_with_what_it_started(
    way: Egress, incus: Incus, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(egress, "_FETCHING_DEADLINE", 1.0)
    noted, begun = tmp_path / "processes", time.monotonic()
    inner = f"sleep 60 & echo $! >>{noted}; wait"
    said = r"of the bridge net-a did not end in 1 s and was killed\. See what it waits for"
    with pytest.raises(HostError, match=said):
        run_open(way, f"(sh -c '{inner}'; true) & echo $! >>{noted}; wait")
    assert time.monotonic() - begun < 30
    numbers = noted.read_text().split()
    assert len(numbers) == 2
    wait_until(lambda: not any(runs(number) for number in numbers))
    wait_until(lambda: incus.done[-1] == ("cut", ""))
    assert not way.is_open()


def test_a_question_that_is_not_answered_opens_nothing(
    way: Egress, incus: Incus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(egress, "_ASKING_DEADLINE", 0.2)
    with pytest.raises(HostError, match=r"did not end in 0 s"):
        run_open(way, "true", unless="sleep 60")
    assert incus.done == []


def runs(number: str) -> bool:
    """Whether a process is there, and has not ended without anybody who asks for its status."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_bridge_that_is_not_there_is_said(way: Egress, incus: Incus) -> None:
    incus.config = None
    with pytest.raises(HostError, match="The bridge net-a is not there"), way.open():
        pass
