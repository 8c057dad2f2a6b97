"""Where `incus` runs: a remote with TLS, and a host over SSH, both for real."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.other_incus import OtherIncus
from tests.e2e.project import (
    Project,
    ai_access_by_turns,
    everything,
    incus,
    left_of,
    light,
    run,
)
from tests.e2e.ssh_server import SshServer, ssh_server

pytestmark = pytest.mark.seldom


def new_project(
    root: Path, domain: str, subnet: str, connection: str, environment: dict[str, str]
) -> Project:
    project = Project(root, domain, subnet, environment=environment)
    light(project)
    project.set(connection=connection, image="incus-stt/images/debian/12")
    if connection.startswith("incus:"):
        project.set(pool=None)  # another daemon has its own
    return project


def take_turns(project: Project, *subnets: str) -> None:
    """Two more domains take turns at the AI access, which `make ai-access` tries by packets."""
    home, work = f"{project.domain}h", f"{project.domain}w"
    ai_access_by_turns(project, dict(zip((home, work), subnets, strict=True)))
    project.policy = [
        {"from": name, "to": f"{project.domain}/gpu-server", "ports": [8000]}
        for name in (home, work)
    ]
    project.write()
    project.up()
    for holder, other in ((work, home), (home, work)):
        done = project.make("ai-access", f"DOMAIN={holder}")
        assert done.returncode == 0, done.stdout + done.stderr
        for name, how in ((holder, "connected"), (other, "silent")):
            tried = f"  {name}: {name}/other to {project.subnet}.1:8000 {how}\n"
            assert tried in done.stdout, done.stdout
    project.domains, project.globals, project.policy = {}, {}, []
    project.write()
    project.up()


@pytest.fixture
def server() -> Iterator[SshServer]:
    with ssh_server() as running:
        yield running


def test_a_host_over_ssh(server: SshServer, tmp_path: Path) -> None:
    environment = {"PATH": f"{server.path}:{os.environ['PATH']}"}
    project = new_project(
        tmp_path / "project", "stt-e2e-x", "10.213.47", "ssh:stt-test", environment
    )
    # The client here leads nowhere: all is asked of the host.
    here, asked = server.path / "incus", tmp_path / "asked"
    here.write_text(f'#!/bin/sh\necho "$@" >>{asked}\nexit 1\n')
    here.chmod(0o755)

    said = project.fails()
    assert server.fingerprint in said and "ssh stt-test" in said
    assert server.logins == 0 and left_of(project.domain) == []

    server.know_host_key()
    project.up()
    assert server.logins == 1  # one shared connection for all commands
    assert project.transcribe("hello_world").status == 200
    assert project.unchanged()
    looked = project.make("doctor")
    assert looked.returncode == 0 and "good      clock" in looked.stdout, looked.stdout
    assert "good      gpu-server key" in looked.stdout

    # Cut off in the middle of an `up`, then there again.
    project.set(quantization="float32")
    project.machines["gpu-server"]["config"] = {"limits.memory": "2GiB"}
    project.write()
    up = project.start_up()
    up.wait_for()
    server.cut()
    assert up.end() != 0
    assert "Traceback" not in up.said, up.said
    assert "stt:connection is ssh:stt-test" in project.fails()
    preview = project.pulumi("preview")
    assert "Drift was not checked" in preview.stdout + preview.stderr
    server.start()
    project.up()
    assert project.unchanged()
    assert project.health()["STT_COMPUTE_TYPE"] == "float32"

    # Through a jump host, which is the user's own configuration.
    before = server.logins
    project.set(connection="ssh:stt-behind")
    assert project.pulumi("preview").returncode == 0
    assert server.logins >= before + 1
    project.set(connection="ssh:stt-test")

    # A host with another key than the one that is known.
    key = server.directory / "known"
    known = key.read_text()
    run("ssh", "-O", "exit", "stt-test", env={**os.environ, **environment})
    other = server.directory / "other"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other))
    key.write_text(" ".join([known.split()[0], *other.with_suffix(".pub").read_text().split()[:2]]))
    said = project.fails()
    assert "another SSH key" in said and server.fingerprint in said
    key.write_text(known)

    take_turns(project, "10.213.84", "10.213.85")

    # What was uploaded is taken away there too.
    place = ("exec", "gpu-server", "--", "ls", "/opt/incus-stt")
    assert "recording-" in incus(*place, project=project.domain)
    project.set(enabled=False)
    project.up()
    assert "recording-" not in incus(*place, project=project.domain)

    project.destroy()
    assert left_of(project.domain) == []
    assert not asked.exists(), asked.read_text()


def test_an_incus_remote(other: OtherIncus, tmp_path: Path) -> None:
    address = "127.0.0.1:18443"
    environment = {"INCUS_CONF": str(tmp_path / "client")}
    project = new_project(tmp_path / "project", "stt-e2e-y", "10.213.52", "incus:lab", environment)
    assert "there is no such remote" in project.fails()

    other.serve("lab", address, tmp_path / "client")
    before = everything(project.domain)
    there = everything(project.domain, **other.environment)
    project.up()
    # All of it is at the other daemon; its bridge is seen here, for both run on one host.
    assert [
        path for path in everything(project.domain) if path != f"/1.0/networks/net-{project.domain}"
    ] == before
    assert project.transcribe("one_two_three").status == 200
    assert project.unchanged()
    looked = project.make("doctor")
    assert looked.returncode == 0 and "doubtful  host" in looked.stdout, looked.stdout
    assert "good      gpu-server key" in looked.stdout and "forwarding" not in looked.stdout

    take_turns(project, "10.213.86", "10.213.87")
    incus("config", "set", "core.https_address", "", **other.environment)
    assert "stt:connection is incus:lab" in project.fails()
    incus("config", "set", "core.https_address", address, **other.environment)
    project.set(quantization="float32")
    project.up()
    project.environment |= other.environment  # to look at it past the remote
    project.destroy()
    assert everything(project.domain, **other.environment) == there
