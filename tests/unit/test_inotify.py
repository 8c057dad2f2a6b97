"""A kernel that has no room for more containers is told before they are made."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from components.inotify import warnings
from components.members import Placement
from host.client import Client, HostError
from host.inotify import EACH, too_few
from host.read import Live
from tests.unit.program import EMPTY_HOST, run
from tests.unit.values import declared


@pytest.mark.parametrize(
    ("limit", "containers", "few"),
    [("128\n", 12, False), ("128", 13, True), ("", 99, False), ("1024", 102, False)],
)
def test_how_many_containers_boot(limit: str, containers: int, few: bool) -> None:
    assert too_few(limit, containers) is few


def host(others: int, ours: tuple[str, ...] = (), **more: Any) -> Live:
    """A host with containers of others and of this stack, which run."""
    found = {"status": "Running", "type": "container", **more}
    names = [("default", f"c{number}") for number in range(others)]
    names += [("ai-tools", name) for name in ours]
    objects = {("instance", project, name): found for project, name in names}
    return replace(EMPTY_HOST, objects=objects, inotify_instances="128")


def said(live: Live) -> list[str]:
    """The warnings of the stack with the machines gpu-server and webui."""
    return warnings(declared(), live, Placement())


def test_the_preview_warns_of_machines_that_will_not_boot() -> None:
    assert 128 // EACH == 12
    assert said(host(10)) == []
    assert said(host(11, ("gpu-server",))) != []
    log = run("cpu", host(11)).log
    (warning,) = (line for line in log if "inotify" in line)
    assert warning.startswith("11 containers run on the host and 2 more are to. ")
    assert "sysctl --system" in warning


@pytest.mark.parametrize(
    "live",
    [
        host(20, ("gpu-server", "webui")),
        host(20, type="virtual-machine"),
        host(20, status="Stopped"),
        replace(host(20), inotify_instances=""),
        replace(host(20, location="two"), answers="one"),
    ],
    ids=["all run", "virtual machines", "stopped", "not known", "on another member"],
)
def test_nothing_is_said_where_all_boot(live: Live) -> None:
    assert said(live) == []


def test_incus_error_gets_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    error = "dnsmasq: failed to create inotify: Too many open files"
    client = Client(declared().settings.host_connection)
    failed = type("Done", (), {"returncode": 1, "stderr": error})()
    monkeypatch.setattr(Client, "run", lambda *_, **__: failed)
    with pytest.raises(HostError, match="max_user_instances of its kernel is used up"):
        client.call("network", "edit", "net-x")
