"""A machine that moves in a cluster: its volumes come too, whatever a run that was cut off left."""

from __future__ import annotations

import copy
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from declaration.connection import Connection
from host import moves
from host.client import Client, HostError
from host.instance import apply_instance
from host.moves import MOVING, fetch_volume
from host.objects import MARK, Place

VOLUME = Place("models", "lab", "default", "node2")
DISK = {"models": {"type": "disk", "pool": "default", "source": "models", "path": "/srv"}}
OLD, STALE, OTHERS = "what the machine wrote", "of a copy that was cut off", "somebody's"


def machine(member: str = "node1", status: str = "Running") -> dict[str, Any]:
    return {"location": member, "status": status, "config": dict(MARK)}


@dataclass(frozen=True)
class Cluster(Client):
    """Two members, machines on node1, and their volume by member: content and configuration."""

    connection: Connection = field(default_factory=lambda: Connection("local"))
    volumes: dict[str, dict[str, Any]] = field(default_factory=dict)
    machines: dict[str, Any] = field(default_factory=lambda: {"gpu": machine()})
    asked: list[str] = field(default_factory=list)

    def get(self, path: str, deadline: float = 600) -> Any:
        """An object of the API."""
        path, _, query = path.partition("?")
        if path == "/1.0":
            return {"environment": {"server_clustered": True}}
        if path == "/1.0/cluster/members":
            return [{"server_name": name, "status": "Online"} for name in ("node1", "node2")]
        if path == "/1.0/storage-pools":
            return ["/1.0/storage-pools/default"]
        if path.startswith("/1.0/instances/"):
            found = self.machines.get(path.rpartition("/")[2])
            return {**found, "devices": DISK, "profiles": []} if found else None
        if "/volumes/custom/models" in path:
            member = query.partition("target=")[2]
            used = [f"/1.0/instances/{name}?project=lab" for name in self.on(member)]
            found = self.volumes.get(member)
            return {**found, "used_by": used} if found else None
        raise AssertionError(path)

    def on(self, member: str) -> list[str]:
        """The machines on a member."""
        return [name for name, each in self.machines.items() if each["location"] == member]

    def run(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Do it."""
        self.asked.append(" ".join(words[:3]))
        target = words[words.index("--target") + 1] if "--target" in words else ""
        match words[:3]:
            case ("stop", name, *_):
                self.machines[name]["status"] = "Stopped"
            case ("start", name, *_):
                assert self.machines[name]["location"] in self.volumes
                self.machines[name]["status"] = "Running"
            case ("move", _, name):
                assert self.machines[name]["status"] == "Stopped" and target in self.volumes
                self.machines[name]["location"] = target
            case ("storage", "volume", "delete"):
                assert not self.on(target)  # in use
                del self.volumes[target]
            case ("storage", "volume", "set"):
                key, value = words[5].split("=")
                self.volumes[target]["config"][key] = value
            case ("storage", "volume", "unset"):
                self.volumes[target]["config"].pop(words[5])
        return subprocess.CompletedProcess(words, 0, "running", "")


@pytest.fixture(autouse=True)
def transfer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def copied(client: Cluster, there: Place, place: Place) -> None:
        assert all(client.machines[each]["status"] == "Stopped" for each in client.on(there.member))
        client.asked.append("copy")
        time.sleep(0.2)  # another machine's move begins meanwhile
        if place.member in client.volumes:
            raise HostError(f"Volume by that name already exists on {place.member}")
        client.volumes[place.member] = copy.deepcopy(client.volumes[there.member])

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(moves, "_transfer", copied)


def volume(content: str, **config: str) -> dict[str, Any]:
    return {"content": content, "config": {**MARK, **config}}


def move(client: Cluster, name: str = "gpu") -> None:
    desired = {"member": "node2", "config": {}, "devices": DISK}
    apply_instance(client, Place(name, "lab"), desired, "image")


@pytest.mark.parametrize(
    "volumes",
    [
        {"node1": volume(OLD)},
        # Cut off while it was copied, and the machine has gone on since.
        {"node1": volume(OLD, **{MOVING: "node2"}), "node2": volume(STALE, **{MOVING: "node2"})},
    ],
)
def test_the_volume_comes_along_and_nothing_stays_behind(volumes: dict[str, Any]) -> None:
    client = Cluster(volumes=volumes)
    assert fetch_volume(client, VOLUME, "", "") is (len(volumes) == 2)
    move(client)
    assert client.machines["gpu"] == machine("node2")
    assert client.volumes == {"node2": volume(OLD)}


def test_what_was_cut_off_after_the_move_is_ended() -> None:
    left = {"node1": volume(STALE, **{MOVING: "node2"}), "node2": volume(OLD, **{MOVING: "node2"})}
    client = Cluster(volumes=left, machines={"gpu": machine("node2")})
    move(client)
    assert client.volumes == {"node2": volume(OLD)}


def test_machines_with_one_volume_move_at_once() -> None:
    client = Cluster(volumes={"node1": volume(OLD)}, machines={"a": machine(), "b": machine()})
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda name: move(client, name), client.machines))
    assert client.machines == {"a": machine("node2"), "b": machine("node2")}
    assert client.volumes == {"node2": volume(OLD)}
    assert client.asked.count("copy") == 1 and client.asked.count("storage volume delete") == 1


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_what_was_cut_off_between_two_machines_goes_on(order: str) -> None:
    """One has moved with the volume and works on it, and the other one is stopped where it was."""
    left = {"node1": volume(STALE, **{MOVING: "node2"}), "node2": volume(OLD, **{MOVING: "node2"})}
    machines = {"a": machine("node2"), "b": machine("node1", "Stopped")}
    client = Cluster(volumes=left, machines=machines)
    for name in order:
        move(client, name)
    assert client.machines == {"a": machine("node2"), "b": machine("node2")}
    assert client.volumes == {"node2": volume(OLD)} and "copy" not in client.asked


def test_a_copy_that_fails_is_made_by_the_next_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Cluster(volumes={"node1": volume(OLD)}, machines={"a": machine(), "b": machine()})
    copied = moves._transfer

    def partial(client: Cluster, there: Place, place: Place) -> None:
        client.volumes[place.member] = volume(STALE, **{MOVING: "node2"})
        raise HostError("no space left on device")

    monkeypatch.setattr(moves, "_transfer", partial)
    with pytest.raises(HostError, match="no space left"):
        move(client, "a")
    assert client.machines == {"a": machine(), "b": machine()}
    monkeypatch.setattr(moves, "_transfer", copied)
    move(client, "b")
    assert client.machines["a"]["location"] == "node1" and client.volumes["node2"]["content"] == OLD
    move(client, "a")
    assert client.machines == {"a": machine("node2"), "b": machine("node2")}
    assert client.volumes == {"node2": volume(OLD)}


def test_a_volume_that_is_no_copy_is_not_overwritten() -> None:
    client = Cluster(volumes={"node1": volume(OLD), "node2": volume(OTHERS)})
    with pytest.raises(HostError, match="node2 has a volume models already, and that of node1"):
        move(client)
    assert not [words for words in client.asked if words.startswith("stop")]
    assert client.volumes["node2"] == volume(OTHERS) and client.volumes["node1"] == volume(OLD)


def test_a_machine_whose_volume_is_not_copied_runs_where_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(client: Cluster, there: Place, place: Place) -> None:
        raise HostError("no space left on device")

    monkeypatch.setattr(moves, "_transfer", full)
    client = Cluster(volumes={"node1": volume(OLD)})
    with pytest.raises(HostError, match="no space left"):
        move(client)
    assert client.machines["gpu"] == machine("node1")
    assert client.volumes["node1"]["content"] == OLD


def test_a_volume_without_a_machine_moves_by_itself() -> None:
    client = Cluster(volumes={"node1": volume(OLD)}, machines={})
    assert fetch_volume(client, VOLUME, "", "")
    assert client.volumes == {"node2": volume(OLD)}


def test_a_member_that_is_away_is_named() -> None:
    class Down(Cluster):
        def run(self, *words: str, **_: Any) -> subprocess.CompletedProcess[str]:
            return subprocess.CompletedProcess(
                words, 1, "", "Error: peer node 10.0.0.3:8443 is down"
            )

    with pytest.raises(HostError) as error:
        Down().call("network", "set", "net-lab", "ipv4.nat=true")
    said = error.value.user_message
    assert "10.0.0.3 does not (incus cluster list)" in said and "cluster remove --force" in said
