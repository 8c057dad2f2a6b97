"""Every machine has users of its own on the host, as far as the host has room for them."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pulumi
import pytest

from components import idmap
from declaration.connection import Connection
from declaration.idmap import ISOLATED, room
from host.client import Client, HostError
from host.objects import SHIFTED, Place
from host.read import Live
from host.volume import apply_volume
from tests.unit.program import EMPTY_HOST, first_run, host_after, run
from tests.unit.values import declared

LINE = "root:1000000:{}\n"
USUAL = LINE.format(10**9) * 2


@pytest.mark.parametrize(
    ("ids", "machines"),
    [
        ("", None),
        ("somebody:100000:65536\n", None),
        (USUAL, 15257),
        (LINE.format(65536), 0),
        (LINE.format(2 * 65536), 0),
        (LINE.format(2 * 65536 + 1), 1),
        (USUAL + "0:5:65536\n", 0),
    ],
)
def test_how_many_machines_have_room(ids: str, machines: int | None) -> None:
    assert room(ids) == machines


def test_each_machine_and_its_volumes() -> None:
    commands = first_run("cpu").commands
    for machine in ("gpu-server", "webui"):
        assert commands[f"ai-tools/{machine}/instance"].data["config"][ISOLATED] == "true"
    for volume in ("models", "webui"):
        assert commands[f"ai-tools/volume/{volume}"].data["config"][SHIFTED] == "true"


@pytest.mark.parametrize("said", ["a profile", "the machine"])
def test_the_operator_s_own_value_wins(tmp_path: Path, said: str) -> None:
    config = f'config: {{{ISOLATED}: "false"}}'
    infra = tmp_path / "infra.yml"
    infra.write_text(
        "domains:\n  lab:\n    trust_level: trusted\n    profiles:\n"
        f"      mine: {{{config if said == 'a profile' else ''}}}\n    machines:\n"
        "      one:\n        profiles: [default, mine]\n        roles: [base_system, stt_server]\n"
        f"        {config if said == 'the machine' else ''}\n"
    )
    commands = run("cpu", infra=str(infra)).commands
    assert commands["lab/one/instance"].data["config"][ISOLATED] == "false"
    assert SHIFTED not in commands["lab/volume/models"].data["config"]


def test_a_host_with_too_few_is_refused() -> None:
    few = LINE.format(3 * 65536) * 2
    with pytest.raises(pulumi.RunError, match=r"have room for 1[.] Give root more in both files"):
        run("cpu", replace(EMPTY_HOST, user_ids=few))
    other = {"status": "Running", "expanded_config": {ISOLATED: "true"}}
    enough = LINE.format(3 * 65536 + 1) * 2
    assert run("cpu", replace(EMPTY_HOST, user_ids=enough)).commands
    full = replace(EMPTY_HOST, user_ids=enough, objects={("instance", "default", "theirs"): other})
    with pytest.raises(pulumi.RunError, match="room for 2 beside 1 of others"):
        run("cpu", full)


def before(live: Live) -> Live:
    """The host with machines and volumes from an earlier version, that run."""
    changed: dict[tuple[str, str, str], Mapping[str, Any]] = dict(live.objects)
    for place, each in live.objects.items():
        config = {k: v for k, v in each["config"].items() if k not in (ISOLATED, SHIFTED)}
        if place[0] in ("instance", "volume"):
            changed[place] = {**each, "config": config, "expanded_config": config}
    return replace(live, objects=changed)


def test_the_preview_says_which_machines_restart() -> None:
    live = host_after(first_run("cpu"))
    assert idmap.warnings(declared(), live) == []
    found = idmap.warnings(declared(), before(live))
    assert [each.split(" ")[0] for each in found] == ["ai-tools/gpu-server", "ai-tools/webui"]
    assert all(" restarts: " in each and "users of its own" in each for each in found)
    old = before(live).objects["volume", "ai-tools", "models"]
    only = replace(live, objects={**live.objects, ("volume", "ai-tools", "models"): old})
    (found_one,) = idmap.warnings(declared(), only)
    assert "ai-tools/gpu-server restarts: the owners of models are to be" in found_one


def test_two_machines_with_the_same_users_are_named() -> None:
    """As an Incus makes them that looks at the name of a machine, and not at its project."""
    live = host_after(first_run("cpu"))
    place = ("instance", "ai-tools", "gpu-server")

    def at(base: int) -> dict[str, Any]:
        config = {ISOLATED: "true", "volatile.idmap.base": str(base)}
        return {"config": config, "expanded_config": config, "status": "Running"}

    for other, said in ((1065536, True), (1131072, False)):
        more = {place: at(1065536), ("instance", "staging", "gpu-server"): at(other)}
        found = idmap.warnings(declared(), replace(live, objects={**live.objects, **more}))
        assert any("staging/gpu-server have the same users" in each for each in found) is said
        assert not said or 'security.idmap.base: "1131072"' in found[0]


@dataclass(frozen=True)
class Incus(Client):
    """A client of a host with a pool, and a volume that a running machine has."""

    driver: str = "dir"
    version: str = "1"
    mounts: str = "true"
    volume: Any = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "asked", [])

    def get(self, path: str, deadline: float = 600) -> Any:
        """An object."""
        drivers = [{"Name": self.driver, "Version": self.version}]
        features = {"idmapped_mounts": self.mounts}
        if path == "/1.0":
            environment = {"kernel_features": features, "storage_supported_drivers": drivers}
            return {"environment": environment}
        if "/volumes/" in path:
            return self.volume
        return {"driver": self.driver, "status": "Running", "config": {}}

    def run(self, *words: str, **_: Any) -> subprocess.CompletedProcess[str]:
        """Remember what is asked for."""
        self.asked.append(" ".join(words[:2]))  # type: ignore[attr-defined]  # frozen
        return subprocess.CompletedProcess(words, 0, "running", "")


DESIRED = {"description": "", "config": {SHIFTED: "true"}}
PLACE = Place("models", "lab", "default")
USED = {"config": {}, "description": "", "used_by": ["/1.0/instances/one?project=lab"]}


@pytest.mark.parametrize(
    ("driver", "version", "mounts", "why"),
    [
        ("dir", "1", "false", "its kernel has no idmapped mounts"),
        ("zfs", "2.1.11-1+deb12u1", "true", "ZFS 2.1.11-1.deb12u1 has no idmapped mounts"),
    ],
)
def test_a_host_that_cannot_share_says_so_before_a_machine_is_stopped(
    driver: str, version: str, mounts: str, why: str
) -> None:
    client = Incus(Connection("local"), driver, version, mounts, USED)
    with pytest.raises(HostError) as error:
        apply_volume(client, PLACE, DESIRED)
    message = error.value.user_message
    assert why.replace("1.deb", "1+deb") in message and ISOLATED in message
    assert client.asked == []  # type: ignore[attr-defined]  # frozen


@pytest.mark.parametrize(
    ("volume", "asked"),
    [
        (None, ["storage volume"]),
        ({**USED, "config": {SHIFTED: "true"}}, ["storage volume"]),
        (USED, ["stop one", "storage volume", "start one", "exec one"]),
    ],
)
def test_machines_are_stopped_only_while_a_volume_becomes_a_shared_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, volume: Any, asked: list[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    client = Incus(Connection("local"), "zfs", "2.2.2", "true", volume)
    apply_volume(client, PLACE, DESIRED)
    assert client.asked == asked  # type: ignore[attr-defined]  # frozen
