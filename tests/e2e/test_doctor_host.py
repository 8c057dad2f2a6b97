"""`make doctor` before the first `up`, on hosts that are broken: in mounts of their own, or by
stand-ins where the real thing would break the host for other tests.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.doctor import Screen, in_files, program, without
from tests.e2e.project import Project, incus, run

MACHINE = "gpu-server"
#: A card with a driver that is too old for Ollama, and one that is not.
CARD = "00000000:01:00.0, NVIDIA GeForce RTX 3060, 12288, 8.6, {driver}"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A stack that was never built."""
    return Project(tmp_path_factory.mktemp("doctor"), "stt-e2e-dh", "10.213.60")


def test_before_the_first_up(project: Project) -> None:
    screen = Screen(project)
    assert (screen.status, screen.of("broken")) == (0, set()), screen.said
    for subject in ("network", MACHINE):
        assert "make up STACK=e2e makes it" in screen.line(subject, "doubtful")


def test_a_full_disk_of_the_host(project: Project) -> None:
    state = project.root / "state"
    screen = Screen(
        project, *in_files(f"mkdir -p {state}", f"mount -t tmpfs -o size=4m none {state}")
    )
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
    assert f"nvidia-smi fails: {said} -> if the driver was just updated" in screen.line(
        "driver", "broken"
    )


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
