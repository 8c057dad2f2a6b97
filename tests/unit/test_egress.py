"""host/egress.py: the way out of a bridge is open as long as somebody fetches, and no longer."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from declaration.connection import Connection
from host import __main__ as program
from host import conntrack, egress
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
    monkeypatch.setattr(Egress, "cut", lambda self: fake.done.append(("cut", "")))
    return fake


@pytest.fixture
def closers() -> list[threading.Thread]:
    """What closes the bridge."""
    return []


@pytest.fixture
def way(
    incus: Incus, closers: list[threading.Thread], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Egress]:
    """The bridge; what closes it are threads here, and it is the fake one until they end."""

    def close_later(self: Egress) -> None:
        closers.append(threading.Thread(target=self.close_later))
        closers[-1].start()

    monkeypatch.setattr(Egress, "_close_later", close_later)
    yield Egress(Connection("local"), "net-a")
    for each in closers:
        each.join(30)
        assert not each.is_alive()


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


def test_two_who_fetch_open_it_once_and_the_last_one_closes(
    way: Egress, incus: Incus, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Egress(way.connection, "net-a")
    with way.open():
        with other.open():
            pass
        time.sleep(0.4)  # longer than it lingers
        assert incus.done == [OPEN]
        monkeypatch.setattr(egress, "_LINGER", 2)
    with other.open():  # the next step, at once
        assert incus.done == [OPEN]
    wait_until(lambda: len(incus.done) == 3)
    assert incus.done == [OPEN, CLOSED, ("cut", "")]


def test_who_looks_leaves_nothing_behind(way: Egress, tmp_path: Path) -> None:
    assert not way.is_used() and not way.is_open()
    assert list(tmp_path.iterdir()) == []


def fail_to_close_once(incus: Incus, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Have Incus refuse the first close; set once it has."""
    closed, failed = incus.call, threading.Event()

    def call(*words: str, project: str) -> str:
        if CLOSED[1] in words[-1] and not failed.is_set():
            failed.set()
            raise HostError("the daemon has just been restarted")
        return closed(*words, project=project)

    monkeypatch.setattr(incus, "call", call)
    return failed


def test_it_is_closed_once_incus_answers_again(
    way: Egress, incus: Incus, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = fail_to_close_once(incus, monkeypatch)
    with way.open():
        pass
    wait_until(lambda: len(incus.done) == 3)
    assert failed.is_set() and incus.done == [OPEN, CLOSED, ("cut", "")]


def test_it_is_closed_where_incus_has_opened_it_and_the_answer_is_lost(
    way: Egress, incus: Incus, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = incus.call

    def call(*words: str, project: str) -> str:
        opened(*words, project=project)
        if incus.done == [OPEN]:
            raise HostError("the connection was lost")
        return ""

    monkeypatch.setattr(incus, "call", call)
    with pytest.raises(HostError, match="was lost"), way.open():
        pass
    wait_until(lambda: len(incus.done) == 3)
    assert incus.done == [OPEN, CLOSED, ("cut", "")]


def test_what_closes_it_is_there_before_it_opens(
    way: Egress, incus: Incus, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Egress) -> None:
        raise OSError("no more processes")

    monkeypatch.setattr(Egress, "_close_later", fail)
    with pytest.raises(OSError, match="no more processes"), way.open():
        pass
    assert incus.done == []


def test_a_bridge_that_was_left_open_is_closed_after_the_next_one_who_fetches(
    way: Egress, incus: Incus
) -> None:
    incus.set(OPEN)
    with way.open():
        time.sleep(0.4)  # longer than it lingers
        assert incus.done == []
    wait_until(lambda: len(incus.done) == 2)
    assert incus.done == [CLOSED, ("cut", "")]


def test_connections_are_cut_where_incus_has_closed_it_and_the_answer_is_lost(
    way: Egress, incus: Incus, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = incus.call

    def call(*words: str, project: str) -> str:
        closed(*words, project=project)
        if incus.done == [OPEN, CLOSED]:
            raise HostError("the connection was lost")
        return ""

    monkeypatch.setattr(incus, "call", call)
    with way.open():
        pass
    wait_until(lambda: len(incus.done) == 4)
    assert incus.done == [OPEN, CLOSED, CLOSED, ("cut", "")]


def test_incus_is_asked_for_a_while_however_long_somebody_fetched(
    way: Egress, incus: Incus, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = fail_to_close_once(incus, monkeypatch)
    monkeypatch.setattr(egress, "_CLOSING_DEADLINE", 0.3)
    with way.open():
        time.sleep(0.6)
    wait_until(lambda: len(incus.done) == 3)
    assert failed.is_set() and incus.done == [OPEN, CLOSED, ("cut", "")]


def test_of_many_that_close_it_one_waits(
    way: Egress, incus: Incus, closers: list[threading.Thread]
) -> None:
    """An `up` of an hour would have as many processes as steps that fetch."""
    with way.open():
        for _ in range(5):
            with way.open():
                pass
        wait_until(lambda: sum(each.is_alive() for each in closers) <= 2)
        assert len(closers) == 6 and incus.done == [OPEN]
    wait_until(lambda: len(incus.done) == 3)
    assert incus.done == [OPEN, CLOSED, ("cut", "")]


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
    monkeypatch.setattr(egress, "_FETCHING_DEADLINE", 5.0)
    noted, begun = tmp_path / "processes", time.monotonic()
    inner = f"sleep 60 & echo $! >>{noted}; wait"
    said = r"of the bridge net-a did not end in 5 s and was killed\. See what it waits for"
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


@pytest.mark.parametrize(
    ("before", "cut"), [(OPEN, [("cut", "")]), (CLOSED, []), (None, [])], ids=str
)
def test_connections_of_a_bridge_that_was_left_open_are_cut_where_it_is_edited(
    before: tuple[str, str] | None, cut: list[Any], incus: Incus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is drift, which ``up`` reverts."""
    if before is None:
        incus.config = None
    else:
        incus.set(before)
    monkeypatch.setattr(Egress, "editing", lambda _: contextlib.nullcontext())

    def edit(options: Any) -> dict[str, Any]:
        incus.done.append(("edited", ""))
        return {}

    monkeypatch.setattr(program, "_edit", edit)
    monkeypatch.setattr("sys.argv", ["host", "apply", "network", "net-a"])
    assert program.main() == 0
    assert incus.done == [("edited", ""), *cut]


def test_what_was_not_cut_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake, ended = Incus(), [False, True]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(egress, "Client", lambda _: fake)
    monkeypatch.setattr(conntrack, "run_as_root", lambda *_: ended.pop(0))
    way = Egress(Connection("local"), "net-a")
    with pytest.raises(HostError, match=r"10\.9\.9\.0/24 were not cut within 60 s\. See"):
        way.cut()
    assert way.is_to_be_cut()
    way.cut()
    assert not way.is_to_be_cut() and ended == []
    fake.config = None
    way.cut()  # there is no bridge, and so no connection
    assert not way.is_to_be_cut()


def test_an_edit_of_the_bridge_cuts_nobody_who_fetches(way: Egress, incus: Incus) -> None:
    incus.set(OPEN)
    assert way.is_left_open()
    with way.open():
        assert not way.is_left_open()
    incus.config = None
    assert not way.is_left_open()
    incus.config = {"ipv4.address": "10.9.9.254/24"}
    incus.set(OPEN)
