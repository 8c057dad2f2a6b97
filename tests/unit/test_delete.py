"""Deleting Incus objects."""

from __future__ import annotations

import pytest

from declaration.connection import parse_connection
from host.client import Client, HostError
from host.objects import INSTANCE, NETWORK, ObjectType, Place, delete_object

#: What Incus 6.0 said while another daemon removed its own bridge.
RACE = (
    "Error: Failed to delete bridge children interfaces: Failed to run: ip -d -j link show "
    'net-other: exit status 1 (Device "net-other" does not exist.)'
)
#: What it said once of a container that it had stopped itself, just before.
STOPPED = (
    'Error: Failed deleting instance "webui" in project "lab": Failed to create instance delete '
    "operation: A matching non-reusable operation has now succeeded"
)


@pytest.mark.parametrize(("kind", "said"), [(NETWORK, RACE), (INSTANCE, STOPPED)])
@pytest.mark.parametrize(
    ("failures", "message", "calls"), [(1, "", 2), (2, "", 3), (3, "Failed", 3)]
)
def test_it_goes_although_something_else_ends_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
    kind: ObjectType,
    said: str,
    failures: int,
    message: str,
    calls: int,
) -> None:
    asked: list[tuple[str, ...]] = []

    def call(_: Client, *words: str, **__: str) -> str:
        asked.append(words)
        if len(asked) <= failures:
            raise HostError(said)
        return ""

    monkeypatch.setattr(Client, "get", lambda *_: {"config": {}})
    monkeypatch.setattr(Client, "call", call)
    client, place = Client(parse_connection("local")), Place("lab", "default")
    if message:
        with pytest.raises(HostError, match=message):
            delete_object(client, kind, place, "")
    else:
        assert delete_object(client, kind, place, "") == {"done": "deleted"}
    assert len(asked) == calls


def test_another_failure_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def call(_: Client, *words: str, **__: str) -> str:
        raise HostError("the network is in use")

    monkeypatch.setattr(Client, "get", lambda *_: {"config": {}})
    monkeypatch.setattr(Client, "call", call)
    client, place = Client(parse_connection("local")), Place("net-lab", "default")
    with pytest.raises(HostError, match="in use"):
        delete_object(client, NETWORK, place, "")
