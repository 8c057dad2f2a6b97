"""Security updates of the distribution: which wait, and what is restarted for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from agent import updates
from agent.drain import Drain
from agent.kinds.service import Service
from agent.machine import Machine, StepError
from agent.status import recorded
from agent.updates import update, using_replaced, waiting
from tests.agent.conftest import Agent

#: What apt says of a package of the distribution's for security, of a usual one, of a new one.
SAID = """Reading package lists...
Inst openssl [3.0.11-1] (3.0.14-1 Debian-Security:12/stable-security [amd64]) []
Inst vim [2:9.0] (2:9.1 Debian:12.5/stable [amd64])
Inst libnew (1.0 Debian-Security:12/stable-security [amd64])
Inst libc6 [2.39-0ubuntu8.1] (2.39-0ubuntu8.3 Ubuntu:24.04/noble-updates, \
Ubuntu:24.04/noble-security [amd64])
Conf openssl (3.0.14-1 Debian-Security:12/stable-security [amd64])
"""
APT = """#!/bin/sh
echo "apt-get $*" >>'{state}/log'
case " $* " in
*" --simulate "*) cat '{state}/waits' ;;
*" update "*) [ ! -e '{state}/apt-fails' ] || {{ echo 'E: no network' >&2; exit 100; }} ;;
*" install "*) : >'{state}/waits' ;;
esac
"""
LIBRARY = "7f00 r-xp 0001 fe:00 5   /usr/lib/x86_64-linux-gnu/libz.so.1.2.13"


@pytest.fixture
def machine(agent: Agent) -> Agent:
    """A machine for which updates wait."""
    agent.systemd.program("apt-get", APT)
    (agent.systemd.state / "waits").write_text(SAID)
    agent.path("/proc").mkdir()
    agent.path("/var/lib/apt/lists").mkdir(parents=True)
    return agent


@pytest.fixture
def process(machine: Agent) -> Callable[[int, str, str], None]:
    """Makes a process with what it has mapped, in a control group."""

    def make(number: int, maps: str, group: str) -> None:
        place = machine.path(f"/proc/{number}")
        place.mkdir()
        (place / "maps").write_text(f"{maps}\n")
        (place / "cgroup").write_text(f"0::{group}\n")

    return make


def test_which_wait(machine: Agent) -> None:
    said = waiting(machine.machine)
    assert said["packages"] == ["openssl", "libc6"]
    assert abs(said["asked"] - time.time()) < 60


def test_a_machine_that_cannot_say_says_nothing(machine: Agent) -> None:
    machine.systemd.program("apt-get", "#!/bin/sh\nexit 100\n")
    assert waiting(machine.machine) == {}


def test_they_are_installed_and_their_users_restart(
    machine: Agent, process: Callable[[int, str, str], None]
) -> None:
    machine.apply("stt_server/service", machine.service("a"))
    gone = f"{LIBRARY} (deleted)"
    process(1, gone, "/init.scope")
    process(20, gone, "/system.slice/engine.service")
    process(21, gone, "/system.slice/dbus.service")
    process(22, gone, "/system.slice/systemd-journald.service")
    process(23, LIBRARY, "/system.slice/cron.service")
    process(24, "7f00 rw-s 0 0:1 9 /dev/shm/x (deleted)", "/system.slice/other.service")
    process(25, gone, "/.lxc")
    machine.systemd.log()
    done = update(machine.machine)
    assert done["updated"] == [
        "openssl 3.0.11-1 -> 3.0.14-1",
        "libc6 2.39-0ubuntu8.1 -> 2.39-0ubuntu8.3",
    ]
    assert done["restarted"] == ["engine.service", "systemd", "systemd-journald.service"]
    assert "dbus.service" in done["old"] and done["broken"] == []
    log = machine.systemd.log()
    (installed,) = [line for line in log if " install " in line]
    assert installed.endswith("--only-upgrade install openssl libc6")
    restarts = [line for line in log if "restart" in line or "reexec" in line]
    # This program's own service last: what it needs is there again by then.
    assert restarts == [
        "systemctl daemon-reexec",
        "systemctl try-restart systemd-journald.service",
        "systemctl try-restart engine.service",
    ]
    assert waiting(machine.machine)["packages"] == []


def test_a_server_of_a_gateway_is_out_of_turn_while_it_restarts(
    machine: Agent, process: Callable[[int, str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[list[str]] = []

    @contextmanager
    def out_of_turn(drain: Drain, _: Machine, runs: bool) -> Iterator[None]:
        assert runs
        ran.append(machine.systemd.log())
        yield
        ran.append(machine.systemd.log())

    machine.apply("stt_server/service", machine.service("a"))
    (service,) = recorded(machine.machine, Service).values()
    drained = replace(service, drain=Drain("http://127.0.0.1:8000/ready"))
    monkeypatch.setattr(updates, "recorded", lambda *_: {"stt_server/service": drained})
    monkeypatch.setattr(Drain, "out_of_turn", out_of_turn)
    process(20, f"{LIBRARY} (deleted)", "/system.slice/engine.service")
    assert update(machine.machine)["broken"] == []
    before, meanwhile = ran
    restart = "systemctl try-restart engine.service"
    assert restart not in before and restart in meanwhile


def test_a_service_that_does_not_come_back_is_named(
    machine: Agent, process: Callable[[int, str, str], None]
) -> None:
    machine.apply("stt_server/service", machine.service("a"))
    process(20, f"{LIBRARY} (deleted)", "/system.slice/engine.service")
    machine.systemd.program("systemctl", "#!/bin/sh\n[ $1 = show ] && echo ActiveState=failed\n")
    (machine.systemd.state / "active" / "engine.service").unlink()
    (broken,) = update(machine.machine)["broken"]
    assert broken == "engine.service: it is failed"


def test_without_network_nothing_is_done(machine: Agent) -> None:
    Path(machine.systemd.state / "apt-fails").touch()
    with pytest.raises(StepError, match="could not fetch its lists") as error:
        update(machine.machine)
    assert "no network" in error.value.details
    assert not [line for line in machine.systemd.log() if " install " in line]


def test_who_uses_nothing_old(machine: Agent, process: Callable[[int, str, str], None]) -> None:
    process(7, LIBRARY, "/system.slice/cron.service")
    assert using_replaced(machine.machine) == set()
