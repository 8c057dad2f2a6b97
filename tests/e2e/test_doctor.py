"""`make doctor` on hosts that are broken: for real, in the shared stack's own machine and in
namespaces of their own; by stand-ins where the real thing would break other tests' host.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.project import STACK, Project, incus, run

MACHINE = "gpu-server"
UNIT = "faster-whisper"
HEALTHY = "until curl -sf localhost:8000/health; do sleep 0.1; done"
STEPS = "/var/lib/incus-stt/steps"
KEY = "/etc/incus-stt/stt_server/api-key"
#: A card with a driver that is too old for Ollama, and one that is not.
CARD = "00000000:01:00.0, NVIDIA GeForce RTX 3060, 12288, 8.6, {driver}"


class Screen:
    """What `make doctor` said, and its exit status."""

    def __init__(self, project: Project, *before: str, stack: str = STACK, **more: str) -> None:
        words = [*before, ".venv/bin/python", "-m", "doctor", "--stack", stack, "--json"]
        done = run(*words, cwd=project.root, env=project.variables(**more))
        self.status, self.said = done.returncode, done.stdout + done.stderr
        self.checks: list[dict[str, str]] = json.loads(done.stdout)["checks"] if done.stdout else []

    def of(self, state: str) -> set[str]:
        """The subjects that are in a state."""
        return {each["subject"] for each in self.checks if each["state"] == state}

    def line(self, subject: str, state: str) -> str:
        """The only finding of a subject that is in a state, with its next step."""
        found = [e for e in self.checks if (e["subject"], e["state"]) == (subject, state)]
        assert len(found) == 1, self.said
        assert (found[0]["next"] == "") == (state == "good")
        return f"{found[0]['found']} -> {found[0]['next']}"


def program(directory: Path, name: str, script: str) -> str:
    """A PATH with a stand-in before everything else."""
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(f"#!/bin/sh\n{script}\n")
    (directory / name).chmod(0o755)
    return f"{directory}:{os.environ['PATH']}"


def without(directory: Path, name: str) -> str:
    """A PATH that has every program but one."""
    directory.mkdir()
    for place in reversed([*os.environ["PATH"].split(":"), "/usr/sbin", "/sbin"]):
        for each in Path(place).glob("*") if Path(place).is_dir() else ():
            if each.name != name and not (directory / each.name).is_symlink():
                (directory / each.name).symlink_to(each)
    return str(directory)


def in_network(*script: str) -> tuple[str, ...]:
    """Words before a command: it runs in a network of its own, after a script. Incus stays."""
    return ("unshare", "--net", "sh", "-ec", f'{"; ".join(script)}; exec "$@"', "sh")


def in_files(*script: str) -> tuple[str, ...]:
    """The same with mounts of its own."""
    return ("unshare", "--mount", "sh", "-ec", f'{"; ".join(script)}; exec "$@"', "sh")


def bridge(project: Project) -> list[str]:
    """A script that makes the stack's bridge in a network of its own, with its address."""
    name = f"net-{project.domain}"
    return [
        f"ip link add {name} type bridge",
        f"ip address add {project.subnet}.254/24 dev {name}",
        f"ip link set {name} up",
        "sysctl -qw net.ipv4.ip_forward=1",
    ]


@contextmanager
def inside(project: Project, breaks: str, mends: str) -> Iterator[None]:
    """The machine, broken by one shell script and mended by another."""
    project.inside("sh", "-ec", breaks)
    try:
        yield
    finally:
        project.inside("sh", "-ec", mends)


def test_a_good_host(project: Project) -> None:
    screen = Screen(project)
    assert (screen.status, screen.of("broken")) == (0, set()), screen.said
    for subject, said in {
        "Incus": "answers",
        "network": f"net-{project.domain}, {project.subnet}.254/24",
        MACHINE: f"runs, {project.subnet}.1",
        f"{MACHINE} {UNIT}": "./models/tiny-digits in int8_float32 on cpu",
        f"{MACHINE} key": "taken (200); without it: 401",
        f"{MACHINE} verification": '"one two three", word error rate 0.0',
        f"{MACHINE} versions": "as pinned: ",
        f"{MACHINE} disk": "free on /",
        f"{MACHINE} DNS": f"knows {MACHINE}.incus",
    }.items():
        found = [each["found"] for each in screen.checks if each["subject"] == subject]
        assert any(said in each for each in found), screen.said
    shown = project.make("doctor")
    assert shown.returncode == 0 and shown.stdout.splitlines()[-1].endswith(" 0 broken")
    assert f"good      {MACHINE} key" in shown.stdout


# The machine


def test_a_machine_that_is_stopped(project: Project) -> None:
    incus("stop", "--force", MACHINE, project=project.domain)
    try:
        screen = Screen(project)
    finally:
        incus("start", MACHINE, project=project.domain)
        project.inside("timeout", "60", "sh", "-c", HEALTHY)
    assert (screen.status, screen.of("broken")) == (1, {MACHINE})
    assert "does not run: stopped -> make up STACK=e2e, or: incus start" in screen.line(
        MACHINE, "broken"
    )
    assert "Traceback" not in screen.said


def test_a_service_that_is_stopped_and_one_that_was_started_again(project: Project) -> None:
    service = f"{MACHINE} {UNIT}"
    start = f"systemctl start stt.socket {UNIT}"
    with inside(project, f"systemctl stop stt.socket {UNIT}", start):
        screen = Screen(project)
    assert "does not run: inactive" in screen.line(service, "broken")
    assert f"journalctl -u {UNIT}" in screen.line(service, "broken")
    kill = (
        f"systemctl kill -s KILL {UNIT}; until curl -sf localhost:8000/health; do sleep 0.2; done"
    )
    with inside(project, kill, f"systemctl stop {UNIT}; {start}"):
        screen = Screen(project)
    assert "systemd has started it again once" in screen.line(service, "doubtful")
    assert screen.status == 0


def test_a_run_that_was_cut_off(project: Project) -> None:
    mark = f"{STEPS}/stt_server%2Fservice.begun"
    with inside(project, f"echo '{{}}' >{mark}", f"rm {mark}"):
        screen = Screen(project)
    assert "cut off (or still works) at stt_server/service" in screen.line(MACHINE, "broken")


def test_a_machine_whose_agent_is_gone(project: Project) -> None:
    agent = "/opt/incus-stt/agent"
    with inside(project, f"mv {agent} {agent}.x", f"mv {agent}.x {agent}"):
        screen = Screen(project)
    assert "runs, and has no agent -> make up" in screen.line(MACHINE, "broken")


def test_another_key_in_the_machine(project: Project) -> None:
    with inside(project, f"cp -p {KEY} /root/k; echo other-key >{KEY}", f"mv /root/k {KEY}"):
        screen = Screen(project)
    assert f"not as it was applied: {KEY}: (another secret, not shown)" in screen.line(
        f"{MACHINE} key", "broken"
    )
    assert "other-key" not in screen.said


def test_a_service_that_refuses_the_key(project: Project) -> None:
    """The key in its files is right, and the service runs with another one."""
    restart = f"systemctl restart {UNIT}; {HEALTHY}"
    put = f"cp -p {KEY} /root/k; printf other-key-x >{KEY}; {restart}; mv /root/k {KEY}"
    with inside(project, put, restart):
        screen = Screen(project)
    assert "refuses the machine's key (401)" in screen.line(f"{MACHINE} key", "broken")


def test_no_name_server_in_the_machine(project: Project) -> None:
    file = "/etc/resolv.conf"
    nobody = (
        f"mv {file} {file}.x; echo nameserver 127.0.0.9 >{file}; systemctl stop systemd-resolved"
    )
    with inside(project, nobody, f"mv {file}.x {file}; systemctl start systemd-resolved"):
        screen = Screen(project)
    said = screen.line(f"{MACHINE} DNS", "broken")
    assert f"{MACHINE}.incus is not known, not {project.subnet}.1" in said


def test_a_full_disk_in_the_machine(project: Project) -> None:
    with inside(project, "mount -t tmpfs -o size=4m none /srv/models", "umount -l /srv/models"):
        screen = Screen(project)
    assert "0.0 of 0.0 GiB free on /srv/models" in screen.line(f"{MACHINE} disk", "broken")


def test_a_service_that_was_never_verified(project: Project) -> None:
    record = f"{STEPS}/stt_server%2Fverify.json"
    with inside(project, f"mv {record} /root/v", f"mv /root/v {record}"):
        screen = Screen(project)
    assert "never verified -> make up" in screen.line(f"{MACHINE} verification", "doubtful")


def test_another_version_than_the_one_that_is_pinned(project: Project) -> None:
    lock = project.root / "declaration" / "venv.py"
    before = lock.read_text()
    lock.write_text(f"{before}\nUV_DIRECTORY += '-next'\n")
    try:
        screen = Screen(project)
    finally:
        lock.write_text(before)
    assert "differs: uv " in screen.line(f"{MACHINE} versions", "doubtful")


def test_a_machine_of_another_stack(project: Project) -> None:
    file = project.root / "stacks" / "Pulumi.other.yaml"
    file.write_text((project.root / "stacks" / f"Pulumi.{STACK}.yaml").read_text())
    try:
        screen = Screen(project, stack="other")
    finally:
        file.unlink()
    assert f"belongs to the stack {STACK} of the project stt" in screen.line(MACHINE, "broken")
    assert not any(each["subject"] == f"{MACHINE} key" for each in screen.checks)


# The network, in a namespace of its own


def test_a_bridge_without_its_address(project: Project) -> None:
    name, address = f"net-{project.domain}", f"{project.subnet}.254/24"
    screen = Screen(project, *in_network("sysctl -qw net.ipv4.ip_forward=1"))
    assert f"the host's interface {name} is gone -> restart" in screen.line("network", "broken")
    taken = [*bridge(project), f"ip address del {address} dev {name}"]
    said = Screen(project, *in_network(*taken)).line("network", "broken")
    assert f"{name} has no address, and not {address}" in said
    # The next step, as it is told, mends it.
    screen = Screen(project, *in_network(*taken, said.partition("on the host: ")[2]))
    screen.line("network", "good")


def test_dockers_policy_of_forward(project: Project) -> None:
    chain = "nft add chain ip filter FORWARD '{type filter hook forward priority 0; policy drop;}'"
    drop = [*bridge(project), "nft add table ip filter", chain]
    screen = Screen(project, *in_network(*drop))
    said = screen.line("forwarding", "broken")
    assert f"drops what net-{project.domain} sends: policy DROP of ip filter FORWARD" in said
    assert screen.of("broken") == {"forwarding"}
    # The next step, as it is told, mends it.
    mend = said.partition("on the host: ")[2].partition(" (docs")[0]
    screen = Screen(project, *in_network(*drop, mend))
    screen.line("forwarding", "good")


def test_a_kernel_that_forwards_nothing(project: Project) -> None:
    off = in_network(*bridge(project), "sysctl -qw net.ipv4.ip_forward=0")
    assert "net.ipv4.ip_forward=0" in Screen(project, *off).line("forwarding", "broken")


def test_a_subnet_that_somebody_else_has(project: Project) -> None:
    vpn = ["ip link add vpn type bridge", f"ip address add {project.subnet}.77/25 dev vpn"]
    screen = Screen(project, *in_network(*bridge(project), *vpn, "ip link set vpn up"))
    said = screen.line("subnet", "broken")
    assert f"{project.subnet}.0/24 is taken: route {project.subnet}.0/25 dev vpn" in said


# The host


def test_a_full_disk_of_the_host(project: Project) -> None:
    state = project.root / "state"
    screen = Screen(project, *in_files(f"mount -t tmpfs -o size=4m none {state}"))
    assert f"0.0 of 0.0 GiB free on {state}" in screen.line("disk", "broken")
    tiny = f"mount -t tmpfs -o size=20g,nr_inodes=2 none {state}; touch {state}/full"
    assert "no inodes are left" in Screen(project, *in_files(tiny)).line("disk", "broken")


def test_no_incus(project: Project, tmp_path: Path) -> None:
    path = without(tmp_path / "bin", "incus")
    screen = Screen(project, PATH=path)
    assert "not installed -> make up STACK=e2e installs it" in screen.line("Incus", "doubtful")
    assert (screen.status, screen.of("broken")) == (0, set()), screen.said
    other = tmp_path / "os-release"
    other.write_text('ID=fedora\nVERSION_ID=43\nPRETTY_NAME="Fedora Linux 43"\n')
    mount = in_files(f"mount --bind {other} $(readlink -f /etc/os-release)")
    screen = Screen(project, *mount, PATH=path)
    assert "neither Debian nor Ubuntu" in screen.line("host", "broken")
    assert screen.status == 1


def test_a_daemon_that_does_not_answer(project: Project, tmp_path: Path) -> None:
    screen = Screen(project, INCUS_SOCKET=str(tmp_path / "unix.socket"))
    assert "the daemon does not answer: " in screen.line("Incus", "broken")
    assert "make up STACK=e2e starts it" in screen.line("Incus", "broken")


def test_a_pool_that_is_not_there(project: Project) -> None:
    before = project.settings.get("pool")
    project.set(pool="absent")
    screen = Screen(project)
    project.set(pool=before)
    assert "the host has no pool absent. There are: " in screen.line("storage", "broken")


def test_a_wrong_clock_and_one_that_is_not_synchronized(project: Project, tmp_path: Path) -> None:
    path = program(tmp_path / "bin", "timedatectl", "echo no")
    assert "not synchronized" in Screen(project, PATH=path).line("clock", "doubtful")
    slow = program(tmp_path / "bin", "date", "echo $(($(/bin/date +%s) - 7200))")
    screen = Screen(project, PATH=slow)
    assert "s away from this computer's" in screen.line("clock", "broken")
    assert "s away from its host's" in screen.line(f"{MACHINE} clock", "broken")


@pytest.fixture
def answering(tmp_path: Path) -> Any:
    """A PATH on which `incus query PATH` says what a test wants of some paths."""

    def path(answers: dict[str, Any]) -> str:
        for name, answer in answers.items():
            (tmp_path / name.replace("/", "_")).write_text(json.dumps(answer))
        real = shutil.which("incus")
        file = f'"{tmp_path}/$(echo "$2" | tr / _)"'
        script = f'[ "$1" = query ] && [ -e {file} ] && exec cat {file}'
        return program(tmp_path / "bin", "incus", f'{script}\nexec {real} "$@"')

    return path


def test_a_certificate_that_ends_soon_and_an_old_incus(
    project: Project, answering: Any, tmp_path: Path
) -> None:
    pem, server = tmp_path / "c.pem", json.loads(incus("query", "/1.0"))
    request = [
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    made = ["-subj", "/CN=x", "-days", "9", "-keyout", "/dev/null", "-out", str(pem)]
    assert run("openssl", *request, *made).returncode == 0
    server["environment"] |= {"certificate": pem.read_text(), "server_version": "5.21.2"}
    screen = Screen(project, PATH=answering({"/1.0": server}))
    assert "expires in 9 days" in screen.line("Incus certificate", "doubtful")
    assert "5.21.2 is too old -> install Incus 6.0" in screen.line("Incus", "broken")


def test_a_member_of_a_cluster_that_is_away(project: Project, answering: Any) -> None:
    server = json.loads(incus("query", "/1.0"))
    server["environment"]["server_clustered"] = True
    states = {"one": "Online", "two": "Offline", "three": "Evacuated"}
    members = [{"server_name": name, "status": state} for name, state in states.items()]
    path = answering({"/1.0": server, "/1.0/cluster/members?recursion=1": members})
    screen = Screen(project, PATH=path)
    assert "not there: two (Offline), three (Evacuated)" in screen.line("cluster", "broken")


# The card


@pytest.fixture(scope="module")
def gpu(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A stack with a GPU that was never built."""
    made = Project(tmp_path_factory.mktemp("doctor-gpu"), "stt-e2e-dg", "10.213.59")
    file = made.root / "infra.e2e.yml"
    infra = yaml.safe_load(file.read_text())
    machine = infra["domains"][made.domain]["machines"][MACHINE]
    machine |= {"gpu": True, "devices": {"gpu": {"type": "gpu", "gputype": "physical"}}}
    machine["roles"] = ["base_system", "ollama_server", "stt_server"]
    file.write_text(yaml.safe_dump(infra))
    return made


def test_no_card(gpu: Project) -> None:
    screen = Screen(gpu)
    assert "no NVIDIA card, and gpu-server is to own one -> on a host" in screen.line(
        "card", "broken"
    )
    assert screen.of("broken") == {"card"} and MACHINE in screen.of("doubtful")


def test_an_old_driver_and_no_toolkit(gpu: Project, tmp_path: Path) -> None:
    path = program(tmp_path / "bin", "nvidia-smi", f"echo '{CARD.format(driver='535.183.01')}'")
    screen = Screen(gpu, PATH=path)
    old = "535.183.01 is too old for Ollama -> install 550 or newer"
    assert screen.line("driver", "broken") == old
    assert "no nvidia-container-cli" in screen.line("container toolkit", "broken")
    program(tmp_path / "bin", "nvidia-container-cli", "echo cli-version: 1.17.8")
    program(tmp_path / "bin", "nvidia-smi", f"echo '{CARD.format(driver='560.35.03')}'")
    screen = Screen(gpu, PATH=path)
    assert (screen.status, screen.of("broken")) == (0, set()), screen.said
    assert screen.line("driver", "good") == "560.35.03 -> "


def test_a_driver_that_does_not_load(gpu: Project, tmp_path: Path) -> None:
    said = "Failed to initialize NVML: Driver/library version mismatch"
    path = program(tmp_path / "bin", "nvidia-smi", f"echo '{said}'; exit 18")
    screen = Screen(gpu, PATH=path)
    assert f"nvidia-smi fails: {said} -> restart the host" in screen.line("driver", "broken")


# What could not be looked at


def test_a_host_that_cannot_be_reached(gpu: Project) -> None:
    before, infra = dict(gpu.settings), (gpu.root / "infra.e2e.yml").read_text()
    where = {"ssh:nobody@127.0.0.1:1": "connection is ssh:", "incus:absent": "no such remote"}
    for connection, said in where.items():
        gpu.set(connection=connection)
        (gpu.root / "infra.e2e.yml").write_text(infra)
        screen = Screen(gpu)
        assert (screen.status, screen.checks) == (2, []) and said in screen.said, screen.said
    gpu.settings = before
    gpu.write()
    (gpu.root / "infra.e2e.yml").write_text(infra)
