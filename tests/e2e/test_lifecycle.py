"""A stack's whole life: taking over, renaming, destroying, coming back."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e import memory_pool
from tests.e2e.project import Project, incus, left_of, light

DOMAIN, SUBNET = "stt-e2e-l", "10.213.53"
MARKER = "/srv/models/kept"


@pytest.fixture(scope="module")
def project(
    tmp_path_factory: pytest.TempPathFactory, bystander: Callable[[], list[str]]
) -> Iterator[Project]:
    """A stack of which nothing is there yet."""
    before = bystander()
    stack = Project(tmp_path_factory.mktemp("lifecycle"), DOMAIN, SUBNET)
    light(stack)
    yield stack
    stack.destroy()
    assert left_of(DOMAIN) == []
    assert bystander() == before


def works(project: Project) -> bool:
    """Whether it answers with the key that the outputs have."""
    answer = project.transcribe("hello_world")
    return answer.status == 200 and str(answer.json["text"]).endswith(" bytes")


def remember(project: Project, machine: str = "gpu-server") -> None:
    """Put something into the model volume that no script would make again."""
    project.inside("touch", MARKER, machine=machine)


def remembers(project: Project, machine: str = "gpu-server") -> bool:
    return project.inside("ls", MARKER, machine=machine) == MARKER


@pytest.mark.seldom
def test_somebody_else_s_project_is_taken_over_only_when_asked(project: Project) -> None:
    domain = project.domain
    assert project.drift() == []  # nothing is there yet, and nothing was
    incus("project", "create", domain, "-c", "features.images=false")
    incus("project", "set", domain, "limits.containers=5")
    incus(
        *("network", "create", f"net-{domain}"),
        *(f"ipv4.address={project.subnet}.254/24", "ipv4.nat=false", "ipv6.address=none"),
    )
    said = project.fails()
    assert "that incus-stt did not make" in said and "stt:adopt" in said
    assert incus("project", "get", domain, "limits.containers").strip() == "5"
    project.set(adopt=True)
    drift = project.drift()
    assert "project: config.limits.containers: 5 -> (none)" in drift
    assert "network: config.ipv4.nat: false -> true" in drift
    project.up()
    assert project.unchanged()
    assert works(project)
    project.set(adopt=None)  # it is this program's own now
    assert project.unchanged()


@pytest.mark.seldom
def test_another_stack_leaves_alone_what_this_one_owns(project: Project, tmp_path: Path) -> None:
    before = left_of(DOMAIN)
    other = Project(tmp_path, DOMAIN, SUBNET)
    light(other)
    try:
        said = other.fails()
        assert "the stack e2e of the project stt" in said and "the instance gpu-server" in said
        assert "stt:adopt" in said and "stt:infra" in said
        other.destroy()
        assert left_of(DOMAIN) == before
        assert works(project)
        # It takes them over only when it is told to, and then they are its own.
        other.set(adopt=True)
        assert any(re.match(r"project: owner: stt/e2e/\S+ -> ", line) for line in other.drift())
        other.up()
        other.set(adopt=None)
        assert other.unchanged()
        assert works(other)
        assert "the stack e2e of the project stt" in project.fails()
        assert "has taken it over" in project.destroy()
        assert works(other)
        assert other.unchanged()
    finally:
        other.destroy()
    assert left_of(DOMAIN) == []
    project.up()


@pytest.mark.seldom
def test_a_machine_with_a_new_name_needs_to_say_so(project: Project) -> None:
    project.machines = {"stt-box": project.machines["gpu-server"]}
    project.write()
    said = project.fails()
    assert "formerly: gpu-server" in said
    assert works(project)


@pytest.mark.seldom
def test_a_renamed_machine_keeps_address_and_models(project: Project) -> None:
    remember(project)
    project.machines["stt-box"]["formerly"] = "gpu-server"
    project.write()
    project.up()
    assert project.unchanged()
    machines = json.loads(incus("list", "--format", "json", project=project.domain))
    assert [machine["name"] for machine in machines] == ["stt-box"]
    assert remembers(project, "stt-box")
    assert works(project)
    del project.machines["stt-box"]["formerly"]
    project.write()
    assert project.unchanged()


@pytest.mark.seldom
def test_a_renamed_domain_keeps_addresses_and_models(project: Project) -> None:
    former, url = project.domain, project.outputs()["stt_url"]
    key = project.outputs()["stt_api_key"]
    project.domain = f"{former}2"
    project.write()
    assert f"formerly: {former}" in project.fails()
    project.write(formerly=former)
    project.up()
    assert project.unchanged()
    assert not [path for path in left_of(former) if path.endswith((f"/{former}", f"={former}"))]
    assert remembers(project, "stt-box")
    assert (project.outputs()["stt_url"], project.outputs()["stt_api_key"]) == (url, key)
    assert works(project)
    project.write()
    project.up()
    assert project.unchanged()


@pytest.mark.seldom
def test_another_storage_pool_takes_the_models_along(project: Project) -> None:
    if "stt-e2e-l-pool" not in incus("storage", "list", "--format", "csv"):
        memory_pool.add("stt-e2e-l-pool")
    before = project.settings.get("pool")
    try:
        project.set(pool="stt-e2e-l-pool")
        project.up()
        assert project.unchanged()
        assert remembers(project, "stt-box")
        volumes = json.loads(
            incus("query", "/1.0/storage-pools/stt-e2e-l-pool/volumes?all-projects=true")
        )
        assert len(volumes) == 2  # the machine and its models
        project.set(pool=before)
        project.up()
        assert remembers(project, "stt-box")
    finally:
        incus("storage", "delete", "stt-e2e-l-pool")


@pytest.mark.seldom
def test_destroy_keeps_the_models_and_says_how_to_remove_them(project: Project) -> None:
    project.set(keepModels=True)
    project.up()
    done = project.pulumi("destroy")
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    listed, kept = done.stderr.split("It leaves, with all that is on them:\n")
    assert f"  machine {project.domain}/" in listed
    assert f"  bridge net-{project.domain}\n" in listed
    assert re.search(rf"^  volume {project.domain}/models \(\d+\.\d MB\)$", kept, re.MULTILINE)
    volume = f"/1.0/storage-pools/{project.pool}/volumes/custom/models?project={project.domain}"
    assert volume in left_of(project.domain)
    assert not any(
        "/instances/" in path or "/networks/" in path for path in left_of(project.domain)
    )
    project.up()
    assert remembers(project, "stt-box")
    assert project.unchanged()
    # Half of it gone already, and a container that a killed `up` made and did not note.
    incus("create", "incus-stt/images/debian/12", "lost", project=project.domain)
    incus("delete", "--force", "stt-box", project=project.domain)
    refused = project.pulumi("destroy")
    assert refused.returncode
    (line,) = set(re.findall(r"  (incus .*delete --force lost)$", refused.stdout, re.MULTILINE))
    subprocess.run(shlex.split(line), check=True, capture_output=True, stdin=subprocess.DEVNULL)
    incus("profile", "edit", "default", project=project.domain, stdin="devices: {}")
    incus("network", "delete", f"net-{project.domain}")
    assert project.pulumi("destroy").returncode == 0
    # The CLI repeats the last line.
    commands = dict.fromkeys(re.findall(r"  (incus .*delete .*)$", said, re.MULTILINE))
    assert len(commands) == 2, said
    for line in commands:
        subprocess.run(shlex.split(line), check=True, capture_output=True, stdin=subprocess.DEVNULL)
    assert left_of(project.domain) == []
