from __future__ import annotations

import socket
import subprocess
import time
from typing import Any

import pytest

from agent import systemd
from agent.files import File
from agent.http import HealthRequest
from agent.machine import Machine, StepError

STEP = "stt/service"


def test_it_runs_with_its_files_and_check_finds_nothing(agent: Any) -> None:
    result = agent.apply(STEP, agent.service("a", files=[File("/etc/engine/x.json", "{}\n")]))
    assert 'MODEL="a"' in agent.systemd.running("engine")
    assert agent.systemd.enabled() == ["engine.service"]
    assert agent.path("/etc/engine/x.json").read_text() == "{}\n"
    assert result["unit"] == "engine.service" and result["took"]["restart"] < 20
    assert agent.check() == {STEP: []} and agent.leftovers() == []


def test_a_restart_counts_from_the_stop_of_the_service_before(
    agent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody holds the port, clients are refused from then on."""
    agent.apply(STEP, agent.service("a"))
    stop = systemd.stop

    def slowly(machine: Machine, unit: str) -> None:
        time.sleep(0.5)
        stop(machine, unit)

    monkeypatch.setattr(systemd, "stop", slowly)
    result = agent.apply(STEP, agent.service("b", unit="other"))
    assert result["took"]["restart"] >= 0.5


@pytest.mark.parametrize(
    ("path", "text", "found"),
    [
        ("/etc/incus-stt/engine.env", 'MODEL="b"\n', "/etc/incus-stt/engine.env line"),
        ("/etc/systemd/system/engine.service", "[Service]\n", "/etc/systemd/system/engine.service"),
        ("/etc/systemd/system/engine.service.d/x.conf", "", "engine.service.d: x.conf"),
    ],
)
def test_what_somebody_changed_is_found_and_mended(
    agent: Any, path: str, text: str, found: str
) -> None:
    agent.apply(STEP, agent.service("a"))
    agent.path(path).parent.mkdir(exist_ok=True)
    agent.path(path).write_text(text)
    assert any(line.startswith(found) for line in agent.drift()), agent.drift()
    agent.apply(STEP, agent.service("a"))
    assert agent.drift() == [] and 'MODEL="a"' in agent.systemd.running("engine")


def test_a_unit_that_somebody_stopped_or_disabled_is_found(agent: Any) -> None:
    agent.apply(STEP, agent.service("a"))
    for directory in ("active", "enabled"):
        (agent.systemd.state / directory / "engine.service").unlink()
    assert agent.drift() == [
        "engine.service: inactive -> active",
        "engine.service: not there -> enabled",
    ]


def changes(agent: Any) -> list[str]:
    """What was started and stopped."""
    words = ("systemctl start", "systemctl stop", "systemctl restart")
    return [
        line.removeprefix("systemctl ") for line in agent.systemd.log() if line.startswith(words)
    ]


def test_a_port_that_is_held_stays_so_while_the_service_restarts(agent: Any) -> None:
    agent.apply(STEP, agent.service("a"))
    agent.systemd.log()
    agent.apply(STEP, agent.service("a", socket="port"))
    # systemd cannot listen where the service does.
    first = ["stop port.socket", "stop engine.service", "start port.socket"]
    assert changes(agent) == [*first, "restart engine.service"]
    assert agent.systemd.enabled() == agent.systemd.active() == ["engine.service", "port.socket"]
    socket_unit = agent.path("/etc/systemd/system/port.socket").read_text()
    assert f"ListenStream=127.0.0.1:{agent.port}\n" in socket_unit
    agent.apply(STEP, agent.service("b", socket="port"))
    assert changes(agent) == ["restart engine.service"]
    # So it does where the new one does not work, and the old one comes back.
    with pytest.raises(StepError, match="the previous one was restored"):
        agent.apply(STEP, agent.service("DIES", socket="port"))
    assert changes(agent) == ["restart engine.service"] * 2
    assert 'MODEL="b"' in agent.systemd.running("engine") and agent.drift() == []
    agent.apply(STEP, agent.service("b", socket="port", host="127.0.0.2"))
    assert changes(agent) == [*first, "restart engine.service"]
    socket_state = agent.systemd.state / "active" / "port.socket"
    socket_state.write_text("[Socket]\nListenStream=127.0.0.1:9\n")
    assert agent.drift() == ["port.socket: closed -> active"]
    socket_state.unlink()
    assert agent.drift() == ["port.socket: inactive -> active"]
    agent.apply(STEP, agent.service("b"))
    assert agent.systemd.active() == agent.systemd.enabled() == ["engine.service"]
    assert agent.drift() == [] and agent.leftovers() == []


def test_a_socket_holds_further_ports(agent: Any) -> None:
    """One more is held after a new start of the socket, and one less is drift."""
    agent.apply(STEP, agent.service("a", socket="port"))
    agent.systemd.log()
    agent.apply(STEP, agent.service("a", socket="port", more_ports=[9]))
    first = ["stop port.socket", "stop engine.service", "start port.socket"]
    assert changes(agent) == [*first, "restart engine.service"]
    socket_unit = agent.path("/etc/systemd/system/port.socket").read_text()
    listens = f"ListenStream=127.0.0.1:{agent.port}\nListenStream=127.0.0.1:9\n"
    assert listens in socket_unit and agent.drift() == []
    socket_state = agent.systemd.state / "active" / "port.socket"
    socket_state.write_text(f"[Socket]\nListenStream=127.0.0.1:{agent.port}\n")
    assert agent.drift() == ["port.socket: closed -> active"]


def test_a_port_stays_held_where_another_service_takes_the_place(agent: Any) -> None:
    agent.apply(STEP, agent.service("a", socket="port"))
    agent.systemd.log()
    agent.apply(STEP, agent.service("b", unit="other", socket="port"))
    assert changes(agent) == ["stop engine.service", "restart other.service"]
    assert agent.systemd.active() == agent.systemd.enabled() == ["other.service", "port.socket"]
    with pytest.raises(StepError, match="the previous one was restored"):
        agent.apply(STEP, agent.service("DIES", socket="port"))
    assert changes(agent) == [
        *("stop other.service", "restart engine.service", "stop engine.service"),
        *("stop engine.service", "restart other.service"),
    ]
    assert agent.systemd.active() == agent.systemd.enabled() == ["other.service", "port.socket"]
    assert agent.drift() == [] and agent.leftovers() == []


def test_a_first_one_that_holds_its_port_is_taken_away_with_it(agent: Any) -> None:
    with pytest.raises(StepError, match="it was removed again"):
        agent.apply(STEP, agent.service("DIES", socket="port"))
    assert agent.systemd.active() == agent.systemd.enabled() == []
    agent.apply(STEP, agent.service("a", socket="port"))
    agent.remove(STEP)
    assert agent.systemd.active() == agent.systemd.enabled() == []


@pytest.mark.parametrize(
    ("states", "boots", "found"),
    [
        (["activating", "activating", "active"], "running", []),
        (["inactive", "activating", "active"], "starting", []),
        (["inactive"], "running", ["engine.service: inactive -> active"]),
        (["auto-restart"], "running", ["engine.service: activating -> active"]),
    ],
)
def test_a_check_waits_for_a_start_that_is_under_way(
    agent: Any, monkeypatch: pytest.MonkeyPatch, states: list[str], boots: str, found: list[str]
) -> None:
    """A machine that boots has no drift, and a service that fails again and again has."""
    agent.apply(STEP, agent.service("a"))
    coming = [*states]

    def run(machine: Machine, argv: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        if argv[1] == "is-system-running":
            return subprocess.CompletedProcess(argv, 0, f"{boots}\n", "")
        state = coming.pop(0) if len(coming) > 1 else coming[0]
        active = "activating" if state == "auto-restart" else state
        said = f"ActiveState={active}\nSubState={state}\nUnitFileState=enabled\n"
        return subprocess.CompletedProcess(argv, 0, said, "")

    monkeypatch.setattr(Machine, "run", run)
    assert agent.drift() == found


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("SICK", "it did not answer as it should within 1 s"),
        ("DIES", "Job for engine.service failed"),
        ("EXITS", "it is failed"),
        ("LOOPS", "it is activating; systemd has started it again, 3 times so far"),
        ("REFUSES", "answers 403"),
        pytest.param(
            "GARBAGE", "it did not answer as it should within 1 s", marks=pytest.mark.sweep
        ),
    ],
)
def test_a_change_that_does_not_work_is_taken_back(agent: Any, word: str, why: str) -> None:
    agent.apply(STEP, agent.service("a", files=[File("/etc/engine/old", "old\n")]))
    before = agent.tree()
    (agent.systemd.state / "journal").write_text("Traceback\nValueError: no such model\n")
    health = HealthRequest(f"{agent.systemd.url}/engine", decisive=word == "REFUSES")
    bad = agent.service(word, files=[File("/etc/engine/new", "new\n")], deadline=1, health=[health])
    with pytest.raises(StepError) as failed:
        agent.apply(STEP, bad)
    message = str(failed.value)
    assert why in message and "the previous one was restored" in message
    assert "ValueError: no such model" in message
    assert agent.tree() == before
    assert 'MODEL="a"' in agent.systemd.running("engine")
    assert agent.drift() == []


def test_what_a_slow_start_takes_is_no_less_of_the_deadline_that_is_told(
    agent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = systemd.start

    def slowly(machine: Machine, unit: str, deadline: float) -> None:
        start(machine, unit, deadline)
        time.sleep(0.7)

    monkeypatch.setattr(systemd, "start", slowly)
    with pytest.raises(StepError, match="it did not answer as it should within 1 s"):
        agent.apply(STEP, agent.service("SICK", deadline=1))


def test_a_first_one_that_does_not_work_is_taken_away(agent: Any) -> None:
    (agent.systemd.state / "journal").write_text("bind: Address already in use\n")
    with pytest.raises(StepError, match="it was removed again") as failed:
        agent.apply(STEP, agent.service("DIES"))
    assert "Choose another port" in str(failed.value)
    assert agent.tree() == {} and agent.check() == {}
    assert agent.systemd.active() == [] and agent.systemd.enabled() == []


def test_the_journal_of_this_start_is_asked_for(agent: Any) -> None:
    with pytest.raises(StepError):
        agent.apply(STEP, agent.service("DIES"))
    asked = [line for line in agent.systemd.log() if line.startswith("journalctl")]
    assert asked[0] == "journalctl --sync"
    assert "_SYSTEMD_INVOCATION_ID=1" in asked[1] and "-n 15" in asked[1]
    assert "-u engine.service" in asked[2]  # the one before said nothing


def test_a_journal_that_cannot_be_written_out_is_read_as_it_is(
    agent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systemd, "_SYNC_DEADLINE", 0.2)
    for sync in ("exit 1", "exec sleep 60"):
        text = f'#!/bin/sh\n[ "$1" != --sync ] || {sync}\necho no such model\n'
        agent.systemd.program("journalctl", text)
        with pytest.raises(StepError, match="no such model"):
            agent.apply(STEP, agent.service("DIES"))


def test_a_new_port_is_tried_before_the_old_service_stops(agent: Any) -> None:
    agent.apply(STEP, agent.service("a"))
    before = agent.tree()
    agent.systemd.log()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        with pytest.raises(StepError, match=f"Something else listens on port {taken} already"):
            agent.apply(STEP, agent.service("b", port=taken))
    assert not any("stop" in line or "restart" in line for line in agent.systemd.log())
    assert agent.tree() == before and agent.drift() == []


def test_an_address_that_the_machine_does_not_have_is_told_as_that(agent: Any) -> None:
    with pytest.raises(StepError, match=r"Nothing can listen on 192\.0\.2\.1"):
        agent.apply(STEP, agent.service("a", host="192.0.2.1"))


def test_another_engine_stops_the_old_unit_and_removes_its_files(agent: Any) -> None:
    agent.apply(STEP, agent.service("a", files=[File("/etc/engine/old", "old\n")]))
    agent.apply(STEP, agent.service("b", unit="other"))
    assert agent.systemd.active() == ["other.service"] == agent.systemd.enabled()
    assert not agent.path("/etc/engine/old").exists()
    assert not agent.path("/etc/systemd/system/engine.service").exists()
    assert agent.drift() == []


def test_another_engine_that_does_not_work_brings_the_old_unit_back(agent: Any) -> None:
    agent.apply(STEP, agent.service("a"))
    before = agent.tree()
    with pytest.raises(StepError, match="the previous one was restored"):
        agent.apply(STEP, agent.service("DIES", unit="other"))
    assert agent.systemd.active() == ["engine.service"] == agent.systemd.enabled()
    assert agent.tree() == before and agent.drift() == []


def test_an_old_one_that_does_not_come_back_is_told_and_stays_drift(agent: Any) -> None:
    refused = [HealthRequest(f"{agent.systemd.url}/engine", decisive=True)]  # so nothing waits
    old = agent.service("a", health=refused)
    agent.apply(STEP, old)
    agent.path("/etc/incus-stt/x.secret").write_text("REFUSES")  # both see it at their next start
    with pytest.raises(StepError, match="That did not work either"):
        agent.apply(STEP, agent.service("b", health=refused))
    assert "last change: not finished -> finished" in agent.drift()
    agent.path("/etc/incus-stt/x.secret").unlink()
    agent.apply(STEP, old)
    assert agent.drift() == []


def test_without_a_record_the_unit_that_was_there_comes_back(agent: Any) -> None:
    agent.apply(STEP, agent.service("a"))
    for record in agent.path("/var/lib/incus-stt/steps").glob("*.json"):
        record.write_text('{"step": "from another time"')
    with pytest.raises(StepError, match="the previous one was restored"):
        agent.apply(STEP, agent.service("DIES"))
    assert 'MODEL="a"' in agent.systemd.running("engine")


def test_a_record_of_another_version_still_tells_what_to_go_back_to(agent: Any) -> None:
    agent.apply(STEP, agent.service("a"))
    record = next(agent.path("/var/lib/incus-stt/steps").glob("*.json"))
    text = record.read_text().replace('"unit": "engine"', '"colour": "blue", "unit": "engine"')
    record.write_text(text.replace('"kind"', '"mood": "good", "kind"'))
    assert any("unknown key colour" in line for line in agent.drift())
    agent.apply(STEP, agent.service("b", unit="other"))
    assert agent.systemd.active() == ["other.service"] and agent.drift() == []


def test_remove_stops_it_and_takes_its_files(agent: Any) -> None:
    agent.apply(STEP, agent.service("a", files=[File("/etc/engine/x", "x\n")]))
    agent.remove(STEP)
    assert agent.tree() == {} and agent.systemd.active() == [] == agent.systemd.enabled()
    agent.remove(STEP)  # nothing there: nothing to do


def test_cut_off_twice_it_still_goes_back_to_what_worked_last(agent: Any) -> None:
    """A second run of the recorded configuration that is cut off proves nothing."""
    agent.quick = True
    agent.apply(STEP, agent.service("a"))
    files = ("etc/incus-stt/engine.env", "etc/systemd/system/engine.service")

    def written() -> list[bytes]:
        tree = agent.tree()
        return [tree[name] for name in files]

    worked = written()
    back, number = agent.keep(), 0
    while [one == other for one, other in zip(written(), worked, strict=True)] != [True, False]:
        back()
        number += 1
        assert agent.cut(number, lambda: agent.apply(STEP, agent.service("b"))) == "cut"
    back = agent.keep()
    for number in range(1, 100):
        back()
        if agent.cut(number, lambda: agent.apply(STEP, agent.service("a"))) == "done":
            break
        with pytest.raises(StepError, match="the previous one was restored"):
            agent.apply(STEP, agent.service("DIES"))
        assert written() == worked and 'MODEL="a"' in agent.systemd.running("engine")
    assert number > 15


def test_a_control_character_is_refused_without_showing_the_value(agent: Any) -> None:
    bad = agent.service("a", sections={"Service": {"ExecStart": "a\nPASSWORD=geheim"}})
    with pytest.raises(StepError, match="control characters") as failed:
        agent.apply(STEP, bad)
    assert "geheim" not in str(failed.value) and agent.check() == {}


def test_a_version_that_does_not_come_up_leaves_the_database_as_it_was(agent: Any) -> None:
    """It changes the database at its start, and the one before could not read that any more."""
    agent.quick = True
    database, rest = agent.path("/srv/engine/data.db"), agent.path("/srv/engine/data.db-wal")
    database.parent.mkdir(parents=True)
    database.write_text("old")

    def starts(text: str) -> None:
        if "SICK" in text:
            database.write_text("migrated")
            rest.write_text("left behind")

    agent.systemd.starts = starts
    data = ["/srv/engine/data.db", "/srv/engine/data.db-wal"]
    agent.apply("stt/service", agent.service("one", data=data, version="1"))
    with pytest.raises(StepError, match="the previous one was restored"):
        agent.apply("stt/service", agent.service("SICK", data=data, version="2", deadline=1))
    assert database.read_text() == "old" and not rest.exists()
    assert 'MODEL="one"' in agent.systemd.running("engine") and agent.drift() == []
    # Another setting of the same version keeps no copy: a database can be large.
    with pytest.raises(StepError, match="the previous one was restored"):
        agent.apply("stt/service", agent.service("SICK", data=data, version="1", deadline=1))
    assert database.read_text() == "migrated"
