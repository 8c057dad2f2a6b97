"""A cluster of three Incus daemons: where machines are, who moves them, a member that dies."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.cards import NVIDIA_SMI
from declaration.connection import parse_connection
from host.reading import read_live
from tests.e2e.cluster import IMAGE, NODES, Cluster, address_of
from tests.e2e.cluster import SUBNET as CLUSTER_SUBNET
from tests.e2e.load import Load, asked_meanwhile
from tests.e2e.project import (
    RECORDINGS,
    Project,
    changed,
    domain,
    incus,
    left_of,
    light,
    post_recording,
    request,
    run,
    wait_until,
)
from tests.e2e.ssh_server import ssh_server
from tests.sizes import sizes, without_cards

DOMAIN, SUBNET = "stt-e2e-cl", "10.213.71"
#: A second domain, whose machine has no role; and a third one, which is not made.
ASIDE, ASIDE_SUBNET = "stt-e2e-cla", "10.213.72"
NEW, NEW_SUBNET = "stt-e2e-clb", "10.213.73"
#: The domain of docs/scale.md, as it is called here, with a short name that leaves room for its
#: part on node2; and that part.
SIZE, SIZE_SUBNET = "stt-e2e-p", "10.213.81"
MORE = f"{SIZE}-2"
HERE, HERE_SUBNET = "stt-e2e-cls", "10.213.83"
#: Where the STT service's volume is in its machine.
VOLUME = "/srv/models"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    try:
        made.set_up()
        yield made
    finally:
        made.remove()


@pytest.fixture(scope="module")
def pair(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Two domains on two members: the STT service on node2, and one of the group on the other."""
    root = tmp_path_factory.mktemp("cluster")
    environment = cluster.serve("lab", root / "client", "node3")
    project = Project(root / "project", DOMAIN, SUBNET, environment=environment)
    light(project)
    project.set(connection="incus:lab", image=IMAGE, pool=None)
    published = {"type": "proxy", "listen": "tcp:0.0.0.0:8000", "connect": "tcp:127.0.0.1:8000"}
    project.machines["gpu-server"] |= {"member": "node2", "devices": {"published": published}}
    project.policy = [{"from": ASIDE, "to": address_of("node2"), "ports": [8000]}]
    project.domains = {ASIDE: domain(ASIDE_SUBNET, aside={"member": "@gpu"})}
    project.write()
    before = left_of(DOMAIN, **cluster.environment())
    project.up()
    yield project
    project.destroy()
    assert left_of(DOMAIN, **cluster.environment()) == before


@pytest.fixture
def as_before(pair: Project) -> Iterator[Project]:
    """The pair; the file is put back."""
    before = json.dumps([pair.machines, pair.domains, pair.policy])
    yield pair
    pair.machines, pair.domains, pair.policy = json.loads(before)
    pair.write()


def where(cluster: Cluster, project: str = DOMAIN, node: str = NODES[0]) -> dict[str, str]:
    """The member of each instance and volume of a project."""
    volumes = "/1.0/storage-pools/default/volumes/custom"
    return {
        each["name"]: each["location"]
        for path in ("/1.0/instances", volumes)
        for each in json.loads(
            cluster.ask("query", f"{path}?recursion=1&project={project}", node=node)
        )
    }


def test_machines_and_volumes_are_on_their_members(cluster: Cluster, pair: Project) -> None:
    assert where(cluster) == {"gpu-server": "node2", "models": "node2"}
    # Of the group's two members, the one that had less.
    assert where(cluster, ASIDE) == {"aside": "node3"}
    members = {f"{DOMAIN}/gpu-server": "node2", f"{ASIDE}/aside": "node3"}
    assert pair.outputs()["members"] == members
    assert pair.outputs()["stt_check"]["text"].endswith("bytes")
    assert pair.unchanged()


def test_what_is_published_on_a_member_is_reached_from_another_one(
    cluster: Cluster, pair: Project
) -> None:
    url = f"http://{address_of('node2')}:8000/health"
    ask = f"import urllib.request as u; print(u.urlopen({url!r}, timeout=10).status)"
    words = ("exec", "aside", "--", "python3", "-c", ask)
    assert cluster.ask(*words, project=ASIDE).strip() == "200"


def refused(project: Project) -> dict[str, str]:
    """What a preview says against places of the file."""
    said = project.fails("preview")
    assert "nothing on the host was touched" in said
    found = dict.fromkeys(line.strip() for line in said.splitlines() if "- infra.e2e.yml: " in line)
    parts = (line.removeprefix("- infra.e2e.yml: ").partition(": ") for line in found)
    return {place: why for place, _, why in parts}


def test_bad_input_is_found_before_anything_is_touched(
    cluster: Cluster, as_before: Project
) -> None:
    project, place = as_before, f"domains.{DOMAIN}.machines.gpu-server"
    server, aside = project.machines["gpu-server"], project.domains[ASIDE]["machines"]["aside"]
    before = left_of(DOMAIN, **cluster.environment())

    server["member"], aside["member"] = "nod2", "@empty"
    project.write()
    said = refused(project)
    why = (
        '"nod2" is not a member of the cluster. Did you mean "node2"? There are: node1, node2, '
        "node3."
    )
    assert said.pop(f"{place}.member") == why
    [why] = said.values()
    assert why.startswith('"@empty" is a group without members, or is not a group of the cluster.')

    server["member"], aside["member"] = "node2", "@gpu"
    project.machines["other"] = {"member": "node1"}
    project.write()
    [(where, why)] = refused(project).items()
    assert where == f"domains.{DOMAIN}.machines.other.member"
    assert why.startswith('"node1" is not where gpu-server is ("node2")')

    del project.machines["other"]
    project.policy.append({"from": ASIDE, "to": f"{DOMAIN}/gpu-server", "ports": [8000]})
    project.write()
    # Incus takes an address that a machine on another member has.
    cluster.ask("create", "--empty", "guest", "--target=node1", "--storage=default")
    nic = ("eth0", "nic", f"network=net-{DOMAIN}", f"ipv4.address={SUBNET}.1")
    cluster.ask("config", "device", "add", "guest", *nic)
    said = refused(project)
    cluster.ask("delete", "guest")
    assert said["policy.1"].startswith(f"{ASIDE} is on node3 and {DOMAIN} on node2")
    why = f"its address {SUBNET}.1 is that of guest (project default, on node1) too"
    assert said[place].startswith(why)

    assert left_of(DOMAIN, **cluster.environment()) == before


def inside(cluster: Cluster, *command: str) -> str:
    """A command in the machine of the STT service."""
    return cluster.ask("exec", "gpu-server", "--", *command, project=DOMAIN).strip()


def test_a_machine_on_another_member_tells_of_its_cards(
    cluster: Cluster, pair: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver's own program tells of them; here a script has its place."""
    row = "00000000:01:00.0, NVIDIA GeForce RTX 3060, 12288, 8.6, 560.35.03"
    for name, value in pair.environment.items():
        monkeypatch.setenv(name, value)
    inside(cluster, "sh", "-ec", f"printf '#!/bin/sh\necho {row}\n' >{NVIDIA_SMI}")
    inside(cluster, "chmod", "755", NVIDIA_SMI)
    live = read_live(parse_connection("incus:lab"), "default")
    inside(cluster, "rm", NVIDIA_SMI)
    cards = {place[1]: state.cards for place, state in live.machines.items()}
    assert cards == {"gpu-server": f"{row}\n", "aside": ""}
    assert live.nvidia_smi == "" and live.answers == "node3"


@pytest.fixture
def size(cluster: Cluster, tmp_path: Path) -> Iterator[Project]:
    """The cluster of docs/scale.md: a server on each of two members, and a gateway; up."""
    environment = cluster.serve("lab", tmp_path / "client", "node1")
    project = Project(tmp_path / "project", SIZE, SIZE_SUBNET, environment=environment)
    light(project)
    _, _, topology = sizes()
    text = json.dumps(topology)
    for written, here in (
        ("192.168.1.11:8000", f"{address_of('node1')}:8100"),
        ("192.168.1.11", address_of("node1")),
        ("192.168.1.12", address_of("node2")),
        ("192.168.1.0/24", f"{CLUSTER_SUBNET}.0/24"),
    ):
        assert written in text
        text = text.replace(written, here)
    topology = json.loads(text)
    machines = topology["domains"]["ai-tools"]["machines"]
    project.machines = {name: without_cards(each) for name, each in machines.items()}
    project.domains = {SIZE: {**domain(SIZE_SUBNET, **project.machines), "member": "node1"}}
    # The part's subnet is the last one of the zone.
    project.globals = {**topology["global"], "addressing": {"zone_base": 194, "zone_step": 10}}
    project.set(connection="incus:lab", image=IMAGE, pool=None, port=8100)
    before = left_of(SIZE, **cluster.environment())
    try:
        project.up()
        yield project
    finally:
        project.destroy()
    assert left_of(SIZE, **cluster.environment()) == before


@pytest.mark.seldom
def test_servers_on_two_members_are_one_service(cluster: Cluster, size: Project) -> None:
    """Its address is a member's own; what dies on one member is answered by the other one.

    Another model goes through the members one by one. What is published between members is let in
    from the member that asks.
    """
    outputs = size.outputs()
    members = {f"{SIZE}/stt": "node1", f"{SIZE}/gateway": "node1", f"{MORE}/stt-more": "node2"}
    assert outputs["members"] == members
    published = f"http://{address_of('node2')}:8100/health"

    def asked_from(node: str) -> int:
        words = ("curl", "--silent", "--max-time", "5", "--output", "/dev/null", published)
        return run(*cluster.namespaces(node), *words).returncode

    assert asked_from("node1") == 0
    assert asked_from("node3") == 28  # no answer: its packets are dropped
    url = f"http://{address_of('node1')}:8100"

    def serving() -> list[bool]:
        return [each["serving"] for each in request(f"{url}/health").json["servers"]]

    def ask() -> Any:
        recording, key = RECORDINGS / "hello_world.wav", outputs["stt_api_key"]
        return post_recording(f"{url}/v1", recording, "light", key)

    wait_until(lambda: serving() == [True, True])
    assert ask().json["text"].endswith("bytes")
    for project, name, kept in (
        (SIZE, "stt", [False, True]),
        (MORE, "stt-more", [True, False]),
    ):
        systemctl = ("exec", name, "--", "systemctl")
        cluster.ask(*systemctl, "stop", "custom.service", project=project)
        assert all(ask().status == 200 for _ in range(4))
        wait_until(lambda kept=kept: serving() == kept)  # type: ignore[misc]
        cluster.ask(*systemctl, "start", "custom.service", project=project)
        wait_until(lambda: serving() == [True, True])
    size.set(model="another")
    with (
        Load(f"{url}/v1", outputs["stt_api_key"], [""], clients=4) as load,
        asked_meanwhile(serving) as seen,
    ):
        said = size.up()
    assert load.wrong == [] and load.good > 20
    servers = (f"{SIZE}/stt", f"{MORE}/stt-more")
    assert {f"{name}/stt_server/service" for name in servers} <= set(changed(said))
    assert [True, True] in seen and [False, False] not in seen  # this engine is back at once
    assert size.unchanged()


@contextmanager
def at_a_member(cluster: Cluster, root: Path, way: str) -> Iterator[Project]:
    """A project that works at node1 over SSH, or that runs on it."""
    namespaces, environment = cluster.namespaces("node1"), cluster.environment("node1")
    if way == "local":
        leading = [*namespaces, f"--wd={root}"]
        yield Project(root, HERE, HERE_SUBNET, environment=environment, leading=leading)
        return
    with ssh_server(address_of("node1"), namespaces, environment) as server:
        server.know_host_key()
        path = {"PATH": f"{server.path}:{os.environ['PATH']}"}
        yield Project(root, HERE, HERE_SUBNET, environment=path)


@pytest.mark.seldom
@pytest.mark.parametrize("way", ["ssh:stt-test", "local"])
def test_at_a_member(cluster: Cluster, tmp_path: Path, way: str) -> None:
    """As its operator would: the members are found, and a machine gets to another one."""
    with at_a_member(cluster, tmp_path / "project", way) as project:
        light(project)
        project.set(connection=way, image=IMAGE, pool=None)
        assert "node1, node2, node3" in project.fails()
        project.machines["gpu-server"]["member"] = "node2"
        project.write()
        project.up()
        assert where(cluster, HERE) == {"gpu-server": "node2", "models": "node2"}
        assert project.outputs()["members"] == {f"{HERE}/gpu-server": "node2"}
        assert project.outputs()["stt_check"]["text"].endswith("bytes")
        assert project.unchanged()
        looked = project.make("doctor")
        assert "node2" in looked.stdout and "bad " not in looked.stdout, looked.stdout
        project.destroy()
    assert left_of(HERE, **cluster.environment()) == []


@pytest.mark.seldom
def test_a_machine_that_somebody_moved_comes_back_to_its_volume(
    cluster: Cluster, pair: Project
) -> None:
    inside(cluster, "sh", "-c", f"echo kept >{VOLUME}/mine")
    cluster.ask("stop", "--force", "gpu-server", project=DOMAIN)
    cluster.ask("move", "gpu-server", "--target=node1", project=DOMAIN)
    assert "gpu-server/instance: member: node1 -> node2" in pair.drift()
    pair.up()
    assert where(cluster) == {"gpu-server": "node2", "models": "node2"}
    assert inside(cluster, "cat", f"{VOLUME}/mine") == "kept"
    assert pair.unchanged()


@pytest.mark.seldom
def test_a_member_that_is_taken_out_keeps_what_it_has(cluster: Cluster, pair: Project) -> None:
    cluster.ask("cluster", "evacuate", "node2", "--force", "--action=stop")
    said = pair.up()
    assert f"{DOMAIN} is left as it is: its machines are on node2, which is evacuated." in said
    assert changed(said) == []
    cluster.ask("cluster", "restore", "node2", "--force")
    pair.up()
    assert pair.unchanged()
    assert where(cluster) == {"gpu-server": "node2", "models": "node2"}


@pytest.mark.seldom
def test_a_machine_moves_with_its_volume(cluster: Cluster, pair: Project) -> None:
    """It stays there for the tests after this one."""
    inside(cluster, "sh", "-c", f"echo moved >{VOLUME}/mine")
    address = inside(cluster, "cat", "/sys/class/net/eth0/address")
    pair.machines["gpu-server"]["member"] = "node1"
    pair.write()
    assert '~ member     : "node2" => "node1"' in pair.pulumi("preview", "--diff").stdout
    pair.up()
    assert where(cluster) == {"gpu-server": "node1", "models": "node1"}
    assert inside(cluster, "cat", f"{VOLUME}/mine") == "moved"
    assert inside(cluster, "cat", "/sys/class/net/eth0/address") == address
    assert pair.drift() == []


@pytest.mark.seldom
def test_a_member_that_dies_holds_up_nobody(cluster: Cluster, as_before: Project) -> None:
    project = as_before
    cluster.kill("node3")
    cluster.wait_for("node3", "OFFLINE")
    # It is the one that is asked: its remote is told the address of another one.
    assert "stt:connection is incus:lab" in project.fails()
    url = f"https://{address_of('node1')}:8443"
    incus("remote", "set-url", "lab", url, **project.environment)

    # What is to change on the member that is gone waits; the rest goes on.
    project.domains[ASIDE]["machines"]["aside"]["config"] = {"limits.memory": "1GiB"}
    project.machines["gpu-server"]["config"] = {"limits.memory": "2GiB"}
    project.write()
    said = project.up()
    assert f"{ASIDE} is left as it is: its machines are on node3, which is offline." in said
    assert changed(said) == [f"{DOMAIN}/gpu-server/instance"]
    assert project.outputs()["members"][f"{ASIDE}/aside"] == "node3"
    looked = project.make("doctor")
    assert "not there: node3 (Offline)" in looked.stdout, looked.stdout
    assert "its member node3 is offline" in looked.stdout

    # What would have to be made there, or on all members.
    project.domains[ASIDE]["machines"]["new"] = {"member": "@gpu"}
    project.domains[NEW] = domain(NEW_SUBNET, new={"member": "node1"})
    project.write()
    said = project.fails("preview")
    assert "new is to be made on node3, which is offline" in said
    assert f"its bridge net-{NEW} is to be made on every member of the cluster, and node3" in said
    del project.domains[NEW], project.domains[ASIDE]["machines"]["new"]
    project.write()

    cluster.start("node3")
    cluster.wait_for("node3", "ONLINE")
    assert changed(project.up()) == [f"{ASIDE}/aside/instance"]
    assert project.unchanged()
