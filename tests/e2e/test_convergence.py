"""`up` stopped at any moment and run again ends in the desired state.

Faults at random moments, on an Incus daemon of the tests' own: other ones in each run
(``tests/seeds.py``). ``STT_FAULTS`` is their number (`make test-all`: 5,
`make test-faults`: 200; `make test`: 2, none of them while a machine's programs are installed).
Beside them is always one that a user met: a full disk while a program is installed again.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e import places
from tests.e2e.other_incus import OtherIncus
from tests.e2e.places import new_directory
from tests.e2e.project import (
    AT_WORK,
    Project,
    Running,
    ending,
    incus,
    left_of,
    request,
    run,
    wait_until,
)
from tests.seeds import FAULT_SEED

SAMPLE = 2
FAULTS = int(os.environ.get("STT_FAULTS") or SAMPLE)
DISK_GIB = 4
#: About as many files as a change of a service writes into the agent's directory.
ROOMS = 13
#: What a change that was cut off leaves in a machine.
LEFTOVERS = r"""
find /etc /opt/incus-stt /srv/models /var/lib/incus-stt /usr/local/share \
    -name '*.incus-stt' -o -name '*.part' -o -name '*.before' -o -name '*.unpacked' \
    -o -name '*.begun' -o -path '/var/lib/incus-stt/transactions/*'
"""


@dataclass
class Bench:
    """A stack at a daemon that may be broken, on a disk that may be filled."""

    project: Project
    daemon: OtherIncus

    # What breaks: each gets the running `up`, and leaves the host as its owner would mend it.

    def kill_up(self, up: Running) -> None:
        """The operator's machine loses power."""
        up.signal(signal.SIGKILL)

    def interrupt_up(self, up: Running) -> None:
        """Ctrl-C, twice."""
        for _ in range(2):
            up.signal(signal.SIGINT)
            time.sleep(0.3)

    def kill_daemon(self, up: Running) -> None:
        self.daemon.kill()
        time.sleep(0.3)
        self.daemon.start()

    def kill_machine(self, up: Running) -> None:
        machine = ("stop", "--force", "gpu-server")
        run("incus", *machine, "--project", self.project.domain, env=self.environment)

    def kill_service(self, up: Running) -> None:
        words = ("exec", "gpu-server", "--", "systemctl", "kill", "-s", "KILL", "faster-whisper")
        run("incus", *words, "--project", self.project.domain, env=self.environment)

    def fill_disk(self, up: Running) -> None:
        filler = self.daemon.directory / "filler"
        free = shutil.disk_usage(self.daemon.directory).free
        run("fallocate", "-l", str(max(free - 4096, 1)), str(filler))
        up.end()
        filler.unlink()

    def cut_network(self, up: Running) -> None:
        """No package comes any more: the bridge is without its NAT until the operator sees it."""
        network = f"net-{self.project.domain}"
        run("incus", "network", "set", network, "ipv4.nat=false", env=self.environment)

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, **self.daemon.environment}


Change = Callable[[Project, random.Random], str]


def change_service(project: Project, chance: random.Random) -> str:
    project.set(quantization=chance.choice(["int8_float32", "float32"]))
    project.set(port=chance.choice([8000, 8111]))
    return "service"


def change_machine(project: Project, chance: random.Random) -> str:
    project.machines["gpu-server"]["config"] = {"user.note": str(chance.random())}
    project.write()
    return "machine"


def change_model(project: Project, chance: random.Random) -> str:
    project.set(model=chance.choice(["./models/tiny-digits", "./models/copy"]))
    return "model"


def add_or_remove_machine(project: Project, chance: random.Random) -> str:
    if project.machines.pop("second", None) is None:
        project.machines["second"] = {"roles": []}
    project.write()
    return "second machine"


def delete_machine(project: Project, chance: random.Random) -> str:
    words = ("delete", "--force", "gpu-server", "--project", project.domain)
    run("incus", *words, env={**os.environ, **project.environment})
    return "deleted machine"


def break_program(project: Project, chance: random.Random) -> str:
    script = "rm -rf /opt/incus-stt/faster-whisper-*/lib/python3*/site-packages/ctranslate2"
    words = ("exec", "gpu-server", "--project", project.domain, "--", "sh", "-c", script)
    run("incus", *words, env={**os.environ, **project.environment})
    return "broken program"


def lose_key(project: Project, chance: random.Random) -> str:
    project.inside("rm", "-f", "/etc/incus-stt/stt_server/api-key")
    return "lost key"


#: How often each comes, and for how many seconds it is at work, about. The last ones install.
CHANGES: list[tuple[int, float, Change]] = [
    (8, 3, change_service),
    (6, 1, change_machine),
    (4, 3, change_model),
    (3, 2, lose_key),
    (1, 5, add_or_remove_machine),
    *([(1, 12, delete_machine), (1, 8, break_program)] if FAULTS > SAMPLE else []),
]
KINDS = {
    "kill_up": 8,
    "interrupt_up": 2,
    "kill_daemon": 4,
    "kill_machine": 2,
    "kill_service": 2,
    "fill_disk": 3,
    "cut_network": 1,
}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    directory = new_directory()
    disk = places.disk_of(directory)
    with disk.open("wb") as file:
        file.truncate(DISK_GIB << 30)
    run("mkfs.ext4", "-q", "-F", str(disk))
    if run("mount", "-o", "loop", str(disk), str(directory)).returncode:
        disk.unlink()
        directory.rmdir()
        pytest.skip("a disk image cannot be mounted here")
    daemon = OtherIncus(directory)
    try:
        daemon.set_up()
        project = Project(
            *(tmp_path_factory.mktemp("bench"), "stt-e2e-j", "10.213.48"),
            environment=daemon.environment,
        )
        shutil.copytree(project.root / "models/tiny-digits", project.root / "models/copy")
        project.set(image="incus-stt/images/debian/12", quantization="float32")
        project.up()
        project.inside("touch", "/srv/models/kept")
        yield Bench(project, daemon)
        assert left_of("stt-e2e-j", **daemon.environment)
        project.destroy()
        assert left_of("stt-e2e-j", **daemon.environment) == []
    finally:
        daemon.remove()


def port(project: Project) -> int:
    return int(project.settings.get("port", 8000))


def converged(bench: Bench) -> None:
    """One `up` after the cause is mended, and all is as declared; nothing else is left."""
    project = bench.project
    project.up()
    again = project.pulumi("preview", "--diff", "--expect-no-changes")
    assert again.returncode == 0, ending(again)
    assert project.inside("sh", "-c", LEFTOVERS) == ""
    assert project.inside("ls", "/srv/models/kept") == "/srv/models/kept"
    health = request(f"http://{project.subnet}.1:{port(project)}/health").json
    assert health["model"] == project.settings["model"]
    assert health["compute_type"] == project.settings["quantization"]
    machines: list[Any] = json.loads(
        incus("list", "--format", "json", project=project.domain, **project.environment)
    )
    assert {machine["name"] for machine in machines} == set(project.machines)


@pytest.mark.seldom
def test_a_machine_that_the_daemon_has_half_created_is_created_again(bench: Bench) -> None:
    """The daemon knows the container, and its root is not there, or not all of it."""
    project = bench.project
    project.machines.pop("second", None)
    project.write()
    project.up()
    project.machines["second"] = {"roles": []}
    project.write()
    moment = random.Random(FAULT_SEED).uniform(0, 0.4)
    for _ in range(5):
        if is_half_created(bench, "second", moment):
            break
        incus("delete", "--force", "second", project=project.domain, **project.environment)
        moment /= 2
    else:
        raise AssertionError("it was created to the end, each time")
    converged(bench)


def is_half_created(bench: Bench, machine: str, moment: float) -> bool:
    """Kill the daemon in an `up`, so many seconds after it knows a machine; was it early?"""
    up = bench.project.start_up()
    path = f"/1.0/instances/{machine}?project={bench.project.domain}"
    ask = ("incus", "query", path)
    wait_until(lambda: run(*ask, env=bench.environment).returncode == 0, pause=0)
    time.sleep(moment)
    bench.kill_daemon(up)
    up.end()
    state = json.loads(incus("query", path, **bench.project.environment))
    created = state["status"] != "Stopped" or "volatile.apply_template" in state["config"]
    return not created


def befalls(bench: Bench, kind: str, change: str, moment: float, after: str) -> bool:
    """A fault so many seconds after what `up` says; whether it came before the end."""
    up = bench.project.start_up()
    up.wait_for(after)
    time.sleep(moment)
    if up.process.poll() is not None:
        return False
    getattr(bench, kind)(up)
    up.end()
    try:
        converged(bench)
    except (AssertionError, OSError) as error:
        what = f"{kind} {moment:.2f} s after {after or 'the start'} of {change}"
        raise AssertionError(f"{what} (STT_FAULT_SEED={FAULT_SEED}): {error}") from error
    return True


def test_a_disk_that_is_full_while_a_program_is_mended(bench: Bench) -> None:
    """A user met it: so each run has it, whatever the seed draws."""
    chance = random.Random(FAULT_SEED)
    change = break_program(bench.project, chance)
    moment = chance.uniform(0, 2)
    assert befalls(bench, "fill_disk", change, moment, "installing"), "the installation was over"


def test_every_fault_converges(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    chance = random.Random(FAULT_SEED)
    table: Counter[str] = Counter()
    while table.total() < FAULTS:
        _, seconds, begin = chance.choices(CHANGES, [weight for weight, *_ in CHANGES])[0]
        change = begin(bench.project, chance)
        kind = chance.choices(list(KINDS), list(KINDS.values()))[0]
        moment = chance.uniform(0, seconds)
        early = chance.random() < 0.2
        if befalls(bench, kind, change, moment, "" if early else AT_WORK):
            table[f"{kind} during {change}"] += 1
    with capsys.disabled():
        print(f"{FAULTS} faults, all converged")
        for line, count in sorted(table.items()):
            print(f"  {count:3} {line}")


#: The agent's own directory as a file system with room for so many files more.
LITTLE_ROOM = """
cd /var/lib/incus-stt
used=$(find . | wc -l)
cp -a . /run/copy
mount -t tmpfs -o "mode=0755" tmpfs /var/lib/incus-stt
cp -a /run/copy/. /var/lib/incus-stt
rm -rf /run/copy
# With the source named, mount does not repeat its uid, a number of the host's that nobody has here.
mount -o "remount,nr_inodes=$((used + $1))" tmpfs /var/lib/incus-stt
"""
ROOM_AGAIN = "mount -o remount,nr_inodes=0 tmpfs /var/lib/incus-stt"
#: And back on the disk, with what was written meanwhile.
DISK_AGAIN = """
cp -a /var/lib/incus-stt /run/copy
umount /var/lib/incus-stt
find /var/lib/incus-stt -mindepth 1 -delete
cp -a /run/copy/. /var/lib/incus-stt
rm -rf /run/copy
"""


@pytest.mark.seldom
@pytest.mark.parametrize("room", random.Random(FAULT_SEED).sample(range(ROOMS), 2))
def test_a_disk_that_is_full_at_any_file_of_a_service_is_mended(bench: Bench, room: int) -> None:
    """The last file is the record: a service that works without one has to be found too.

    tests/agent has every file; here are two of them, in a real machine.
    """
    project = bench.project
    other = 601 if project.settings.get("keepAlive") != "601s" else 602
    project.set(keepAlive=f"{other}s")
    project.inside("sh", "-euc", LITTLE_ROOM, "sh", str(room))
    try:
        done = project.pulumi("up")
        project.inside("sh", "-euc", ROOM_AGAIN)
        if done.returncode:
            assert "No space left on device" in done.stdout + done.stderr
            assert request(f"http://{project.subnet}.1:{port(project)}/health").status == 200
        converged(bench)
    finally:
        project.inside("sh", "-euc", DISK_AGAIN)
    assert project.unchanged()
    assert project.health()["status"] == "ok"
