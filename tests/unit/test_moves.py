"""A machine that moves in a cluster: its volumes come too, whatever a run that was cut off left."""

from __future__ import annotations

import copy
import subprocess
from dataclasses import dataclass, field
from typing import Any

import pytest

from declaration.connection import Connection
from host import moves
from host.client import Client, HostError
from host.instance import apply_instance
from host.moves import MOVING, fetch_volume
from host.objects import MARK, Place

MACHINE, VOLUME = Place("gpu", "lab"), Place("models", "lab", "default", "node2")
DISK = {"models": {"type": "disk", "pool": "default", "source": "models", "path": "/srv"}}
OLD, STALE, OTHERS = "what the machine wrote", "of a copy that was cut off", "somebody's"


@dataclass(frozen=True)
class Cluster(Client):
    """Two members, a machine on node1, and its volume by member: content and configuration."""

    connection: Connection = field(default_factory=lambda: Connection("local"))
    volumes: dict[str, dict[str, Any]] = field(default_factory=dict)
    machine: Any = field(
        default_factory=lambda: {"location": "node1", "status": "Running", "config": dict(MARK)}
    )
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
        if path == "/1.0/instances/gpu":
            return {**self.machine, "devices": DISK, "profiles": []} if self.machine else None
        if "/volumes/custom/models" in path:
            member = query.partition("target=")[2]
            used = self.machine.get("location") == member
            found = self.volumes.get(member)
            return (
                {**found, "used_by": ["/1.0/instances/gpu?project=lab"] * used} if found else None
            )
        raise AssertionError(path)

    def run(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Do it."""
        self.asked.append(" ".join(words[:3]))
        target = words[words.index("--target") + 1] if "--target" in words else ""
        match words[:3]:
            case ("stop", *_):
                self.machine["status"] = "Stopped"
            case ("start", *_):
                self.machine["status"] = "Running"
            case ("move", *_):
                assert self.machine["status"] == "Stopped" and target in self.volumes
                self.machine["location"] = target
            case ("storage", "volume", "delete"):
                assert self.machine.get("location") != target  # in use
                del self.volumes[target]
            case ("storage", "volume", "set"):
                key, value = words[5].split("=")
                self.volumes[target]["config"][key] = value
            case ("storage", "volume", "unset"):
                self.volumes[target]["config"].pop(words[5])
        return subprocess.CompletedProcess(words, 0, "running", "")


@pytest.fixture(autouse=True)
def transfer(monkeypatch: pytest.MonkeyPatch) -> None:
    def copied(client: Cluster, there: Place, place: Place) -> None:
        assert client.machine.get("status") != "Running" and place.member not in client.volumes
        client.volumes[place.member] = copy.deepcopy(client.volumes[there.member])

    monkeypatch.setattr(moves, "_transfer", copied)


def volume(content: str, **config: str) -> dict[str, Any]:
    return {"content": content, "config": {**MARK, **config}}


def move(client: Cluster) -> None:
    desired = {"member": "node2", "config": {}, "devices": DISK}
    apply_instance(client, MACHINE, desired, "image")


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
    assert client.machine["location"] == "node2" and client.machine["status"] == "Running"
    assert client.volumes == {"node2": volume(OLD)}


def test_what_was_cut_off_after_the_move_is_ended() -> None:
    left = {"node1": volume(STALE, **{MOVING: "node2"}), "node2": volume(OLD, **{MOVING: "node2"})}
    client = Cluster(volumes=left)
    client.machine["location"] = "node2"
    move(client)
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
    assert (client.machine["location"], client.machine["status"]) == ("node1", "Running")
    assert client.volumes["node1"]["content"] == OLD


def test_a_volume_without_a_machine_moves_by_itself() -> None:
    client = Cluster(volumes={"node1": volume(OLD)}, machine={})
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
