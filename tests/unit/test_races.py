"""What Incus refuses because of the moment only."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from declaration.connection import parse_connection
from host.client import Client, HostError
from host.objects import INSTANCE, NETWORK, ObjectType, Place, delete_object

#: What Incus 6.0 said: while another daemon removed its own bridge; of a container that it had
#: stopped itself just before; of a volume that two containers got at the same time.
BRIDGE = (
    "Error: Failed to delete bridge children interfaces: Failed to run: ip -d -j link show "
    'net-other: exit status 1 (Device "net-other" does not exist.)'
)
STOPPED = (
    'Error: Failed deleting instance "webui" in project "lab": Failed to create instance delete '
    "operation: A matching non-reusable operation has now succeeded"
)
SHIFTED = (
    'Error: Failed to start device "wheels": Failed mounting volume: Failed shifting custom '
    'storage volume "wheels" on storage pool "default": Idmaps of container and storage volume are '
    "not identical"
)


class Incus:
    """A client that fails a number of times; ``there``: the object, before and after."""

    def __init__(self, failures: int, said: str, there: bool = True) -> None:
        self.failures, self.said, self.there = failures, said, there
        self.asked: list[list[str]] = []

    def __call__(self, argv: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        if "query" in argv:
            there = self.there or not self.asked
            return subprocess.CompletedProcess(argv, 0 if there else 1, "{}", "Error: not found")
        self.asked.append(argv)
        failed = len(self.asked) <= self.failures
        return subprocess.CompletedProcess(argv, int(failed), "", self.said if failed else "")


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setattr("host.client._PAUSE", 0)
    return Client(parse_connection("local"))


@pytest.mark.parametrize(("kind", "said"), [(NETWORK, BRIDGE), (INSTANCE, STOPPED)])
@pytest.mark.parametrize(("failures", "calls"), [(1, 2), (2, 3), (3, 3)])
def test_it_goes_although_something_else_ends_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
    client: Client,
    kind: ObjectType,
    said: str,
    failures: int,
    calls: int,
) -> None:
    incus = Incus(failures, said)
    monkeypatch.setattr("subprocess.run", incus)
    if failures == calls:
        with pytest.raises(HostError, match="Failed"):
            delete_object(client, kind, Place("lab", "default"), "")
    else:
        assert delete_object(client, kind, Place("lab", "default"), "") == {"done": "deleted"}
    assert len(incus.asked) == calls


def test_what_is_gone_after_all_is_deleted(monkeypatch: pytest.MonkeyPatch, client: Client) -> None:
    monkeypatch.setattr("subprocess.run", Incus(3, STOPPED, there=False))
    assert delete_object(client, INSTANCE, Place("lab", "default"), "") == {"done": "deleted"}


def test_a_volume_that_two_machines_get_at_once(
    monkeypatch: pytest.MonkeyPatch, client: Client
) -> None:
    incus = Incus(1, SHIFTED)
    monkeypatch.setattr("subprocess.run", incus)
    assert client.run("start", "m").returncode == 0 and len(incus.asked) == 2


def test_another_failure_is_told_at_once(monkeypatch: pytest.MonkeyPatch, client: Client) -> None:
    incus = Incus(3, "the network is in use")
    monkeypatch.setattr("subprocess.run", incus)
    with pytest.raises(HostError, match="in use"):
        delete_object(client, NETWORK, Place("net-lab", "default"), "")
    assert len(incus.asked) == 1
