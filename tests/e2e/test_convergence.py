"""`up` stopped at any moment and run again ends in the desired state.

Faults at seeded random moments, on an Incus daemon of the tests' own. ``STT_TEST_SEED`` and
``STT_TEST_FAULTS`` choose others and more.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.other_incus import OtherIncus
from tests.e2e.project import STACK, Project, everything, incus, request, run
from tests.e2e.ssh_server import new_directory

SEED = int(os.environ.get("STT_TEST_SEED", "41"))
FAULTS = int(os.environ.get("STT_TEST_FAULTS", "60"))
DISK_GIB = 4
LEFTOVERS = (
    r"find /etc /opt/incus-stt /srv/models /var/lib/incus-stt \( -name '*.incus-stt' "
    r"-o -name '*.part' -o -name '*.before' -o -name 'old*' -path '/var/lib/incus-stt/*' \)"
)


@dataclass
class Bench:
    """A stack at a daemon that may be broken, on a disk that may be filled."""

    project: Project
    daemon: OtherIncus

    def start_up(self) -> subprocess.Popen[bytes]:
        environment = {**os.environ, **self.project.environment}
        for name in ("PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"):
            environment.pop(name, None)
        return subprocess.Popen(
            [str(self.project.root / "bootstrap" / "pulumi.sh"), STACK, "up"],
            cwd=self.project.root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    # What breaks: each gets the running `up`, and leaves the host as its owner would mend it.

    def kill_up(self, up: subprocess.Popen[bytes]) -> None:
        """The operator's machine loses power."""
        os.killpg(up.pid, signal.SIGKILL)

    def interrupt_up(self, up: subprocess.Popen[bytes]) -> None:
        """Ctrl-C, twice."""
        for _ in range(2):
            os.killpg(up.pid, signal.SIGINT)
            time.sleep(0.3)

    def kill_daemon(self, up: subprocess.Popen[bytes]) -> None:
        self.daemon.kill()
        time.sleep(0.3)
        self.daemon.start()

    def kill_machine(self, up: subprocess.Popen[bytes]) -> None:
        machine = ("stop", "--force", "gpu-server")
        run("incus", *machine, "--project", self.project.domain, env=self.environment)

    def kill_service(self, up: subprocess.Popen[bytes]) -> None:
        words = ("exec", "gpu-server", "--", "systemctl", "kill", "-s", "KILL", "faster-whisper")
        run("incus", *words, "--project", self.project.domain, env=self.environment)

    def fill_disk(self, up: subprocess.Popen[bytes]) -> None:
        filler = self.daemon.directory / "filler"
        free = shutil.disk_usage(self.daemon.directory).free
        run("fallocate", "-l", str(max(free - 4096, 1)), str(filler))
        up.wait(timeout=120)
        filler.unlink()

    def cut_network(self, up: subprocess.Popen[bytes]) -> None:
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


#: How often each comes, and for how many seconds it is at work.
CHANGES: list[tuple[int, float, Change]] = [
    (8, 1.6, change_service),
    (6, 0.9, change_machine),
    (4, 1.8, change_model),
    (3, 1.2, lose_key),
    (1, 5, add_or_remove_machine),
    (1, 8, delete_machine),
    (1, 5, break_program),
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
    disk = Path(f"{directory}.disk")
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
            *(tmp_path_factory.mktemp("bench"), "stt-e2e-b", "10.213.48"),
            environment=daemon.environment,
        )
        shutil.copytree(project.root / "models/tiny-digits", project.root / "models/copy")
        project.set(image="incus-stt/images/debian/12", quantization="float32")
        project.up()
        project.inside("touch", "/srv/models/kept")
        yield Bench(project, daemon)
        before = [path for path in everything(**daemon.environment) if "stt-e2e-b" in path]
        assert before
        done = project.pulumi("destroy")
        assert done.returncode == 0, done.stdout + done.stderr
        left = [path for path in everything(**daemon.environment) if "stt-e2e-b" in path]
        assert left == []
    finally:
        daemon.remove()
        run("umount", "-l", str(directory))
        shutil.rmtree(directory, ignore_errors=True)
        disk.unlink()


def converged(bench: Bench) -> None:
    """One `up` after the cause is mended, and all is as declared; nothing else is left."""
    project = bench.project
    project.up()
    assert project.unchanged()
    assert project.inside("sh", "-c", LEFTOVERS) == ""
    assert project.inside("ls", "/srv/models/kept") == "/srv/models/kept"
    url = f"http://{project.subnet}.1:{project.settings.get('port', 8000)}/health"
    health = request(url).json
    assert health["model"] == project.settings["model"]
    assert health["compute_type"] == project.settings["quantization"]
    machines: list[Any] = json.loads(
        incus("list", "--format", "json", project=project.domain, **project.environment)
    )
    assert {machine["name"] for machine in machines} == set(project.machines)


def test_every_fault_converges(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    chance = random.Random(SEED)
    table: Counter[str] = Counter()
    while table.total() < FAULTS:
        _, seconds, begin = chance.choices(CHANGES, [weight for weight, *_ in CHANGES])[0]
        change = begin(bench.project, chance)
        kind = chance.choices(list(KINDS), list(KINDS.values()))[0]
        moment = chance.uniform(0.1, seconds)
        up = bench.start_up()
        time.sleep(moment)
        if up.poll() is not None:
            continue  # too late to break anything
        getattr(bench, kind)(up)
        up.wait(timeout=300)
        what = f"{table.total()}: {kind} {moment:.2f} s into {change} (seed {SEED})"
        try:
            converged(bench)
        except (AssertionError, OSError) as error:
            raise AssertionError(f"{what}: {error}") from error
        table[f"{kind} during {change}"] += 1
    with capsys.disabled():
        print(f"\n{FAULTS} faults, all converged")
        for line, count in sorted(table.items()):
            print(f"  {count:3} {line}")
