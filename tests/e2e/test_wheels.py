"""Wheels are fetched once for the machines of a domain, and none trusts another one."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.e2e.project import Project, incus, left_of, machine

pytestmark = pytest.mark.seldom

DOMAIN, SUBNET = "stt-e2e-k", "10.213.56"
WHEELS = "/var/cache/incus-stt/wheels"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Two machines with an STT service."""
    stack = Project(tmp_path_factory.mktemp("wheels"), DOMAIN, SUBNET)
    stack.machines = {
        "gpu-server": machine("base_system", "stt_server", cache=False),
        "second": machine("base_system", "stt_server", cache=False),
    }
    stack.write()
    yield stack
    stack.destroy()
    assert left_of(DOMAIN) == []


def inside(name: str, script: str) -> str:
    return incus("exec", name, "--", "sh", "-euc", script, project=DOMAIN).strip()


def test_one_machine_fetches_for_both(project: Project) -> None:
    said = project.up()
    assert said.count("fetching wheels for the machines of this domain") == 1, said
    assert re.search(r"of this domain: 1[0-9][0-9] MB", said), said
    assert said.count("installing faster-whisper: packages of 1") == 2, said
    assert said.count("packages come from what the machines of this domain fetched") == 2, said
    assert project.unchanged()
    listed = [inside(name, f"ls {WHEELS}/*.whl") for name in ("gpu-server", "second")]
    assert listed[0] == listed[1] and "/ctranslate2-" in listed[0]


def test_a_machine_does_not_trust_what_another_one_changed(project: Project) -> None:
    """A wheel with other content, as somebody would leave it who has taken over one machine."""
    change = (
        f"cd {WHEELS}; python3 - click-*.whl <<'E'\n"
        "import sys, zipfile\n"
        "with zipfile.ZipFile(sys.argv[1], 'a') as wheel:\n"
        "    wheel.writestr('click/__init__.py', 'raise SystemExit(\"taken over\")')\n"
        "E"
    )
    inside("gpu-server", change)
    incus("delete", "--force", "second", project=DOMAIN)
    said = project.up()
    assert "fetching wheels" not in said
    installed = "/opt/incus-stt/faster-whisper-*/lib/python3*/site-packages"
    assert "taken over" not in inside("second", f"cat {installed}/click/__init__.py")
    assert project.unchanged()


def test_a_machine_comes_and_goes_and_the_other_stays(project: Project) -> None:
    """The volume that they share is attached and detached while the service runs."""
    words = ("config", "get", "gpu-server", "volatile.uuid")
    before, second = incus(*words, project=DOMAIN), project.machines.pop("second")
    project.write()
    assert f"{DOMAIN}/volume/wheels deleted" in project.up()
    assert project.unchanged() and not inside("gpu-server", f"ls -A {WHEELS} || true")
    project.machines["second"] = second
    project.write()
    project.up()
    assert incus(*words, project=DOMAIN) == before
    assert inside("gpu-server", f"ls {WHEELS}/*.whl")
