"""The three sizes of docs/scale.md: each is a stack, and the second grows out of the first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml

from host.read import Live
from tests.sizes import as_two_domains, sizes
from tests.unit.cluster import CLUSTER, HARDWARE, MEMBERS, cluster_after
from tests.unit.program import Program, host_after, host_with, run
from tests.unit.values import CARD

ONE, SEVERAL, IN_CLUSTER = sizes()
TWO_DOMAINS, SERVERS = as_two_domains()
SECOND = replace(CARD, pci="0000:41:00.0", drm="1")
GATEWAY = {"servers": SERVERS}
#: The cluster with a card on each of two members.
CARDS = replace(
    CLUSTER,
    members=MEMBERS | {n: replace(MEMBERS[n], resources=HARDWARE) for n in ("node1", "node2")},
)


@pytest.fixture
def written(tmp_path: Path) -> Callable[[dict[str, Any]], str]:
    """Writes a topology; its path."""

    def write(topology: dict[str, Any]) -> str:
        file = tmp_path / "infra.yml"
        file.write_text(yaml.safe_dump(topology, sort_keys=False))
        return str(file)

    return write


def without_node2(program: Program) -> Live:
    """The cluster once a program has run, while node2 does not answer."""
    live = cluster_after(program)
    members = {**CARDS.members, "node2": replace(CARDS.members["node2"], status="Offline")}
    away = ("ai-more", "ai-tools-2")
    there = {place: found for place, found in live.machines.items() if place[0] not in away}
    return replace(live, members=members, machines=there)


def test_a_second_card_leaves_the_first_server_as_it_is(written: Callable[..., str]) -> None:
    one = run("gpu", host_with(CARD, SECOND), infra=written(ONE))
    assert one.outputs["stt_url"] == "http://10.120.0.1:8000/v1"
    live = host_after(one, host_with(CARD, SECOND))
    two = run("gpu", live, one, infra=written(SEVERAL))
    assert two.outputs["gateway_servers"] == {
        "stt": "http://10.120.0.1:8000",
        "stt-2": "http://10.120.0.2:8000",
    }
    assert two.outputs["stt_url"] == "http://10.120.0.3:8000/v1"
    assert two.outputs["stt_quantization"] == "float16"
    changes = two.changes(one)
    assert not {"delete", "replace"} & set(changes.values())
    first = {name: done for name, done in changes.items() if name.startswith("ai-tools/stt/")}
    # It gets the volume of packages that both share, and drains before it changes from now on.
    parts = ("instance", "stt_server/service", "stt_server/verify")
    assert first == {f"ai-tools/stt/{part}": "update" for part in parts}
    assert changes["ai-tools/profile/card"] == "update"


def test_each_machine_has_a_card_of_its_own(written: Callable[..., str]) -> None:
    file = written(SEVERAL)
    with pytest.raises(pulumi.RunError, match=r"stt-2\.gpu: no card of the host is the one"):
        run("gpu", host_with(CARD), infra=file)


def test_a_card_of_somebody_else_s_is_theirs(written: Callable[..., str]) -> None:
    """One that has another card of the host is left alone."""

    def trainer(**device: str) -> dict[tuple[str, str, str], Any]:
        devices = {"card": {"type": "gpu", **device}}
        return {("instance", "lab", "trainer"): {"expanded_devices": devices, "status": "Running"}}

    file, third = written(SEVERAL), replace(CARD, pci="0000:61:00.0", drm="2")
    cards = (CARD, SECOND, third)
    assert run("gpu", host_with(*cards, objects=trainer(pci=third.pci)), infra=file).commands
    with pytest.raises(pulumi.RunError, match=r"stt-2 is to own its card, and .* it too: trainer"):
        run("gpu", host_with(*cards, objects=trainer(pci=SECOND.pci)), infra=file)


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("topology", "gateway", "other"),
    [
        (IN_CLUSTER, {}, "ai-tools-2/stt-more"),
        pytest.param(TWO_DOMAINS, GATEWAY, "ai-more/stt", id="two domains"),
    ],
)
def test_a_cluster_has_a_server_on_each_member(
    written: Callable[..., str],
    topology: dict[str, Any],
    gateway: dict[str, Any],
    other: str,
) -> None:
    """One domain does by itself what an operator can write with a domain for each member."""
    file = written(topology)
    program = run("gpu", CARDS, infra=file, gateway=gateway)
    members = {"ai-tools/stt": "node1", "ai-tools/gateway": "node1", other: "node2"}
    assert program.outputs["members"] == members
    [server] = SERVERS
    assert set(program.outputs["gateway_servers"].values()) == {"http://10.120.0.1:8000", server}
    devices = program.commands[f"{other}/instance"].data["devices"].values()
    listens = [each["listen"] for each in devices if each["type"] == "proxy"]
    assert listens == [server.replace("http://", "tcp:")]
    keys = {
        program.commands[f"{machine}/stt_server/secrets"].spec["secrets"][0]["content"]
        for machine in ("ai-tools/stt", other)
    }
    assert len(keys) == 1
    # What passes between members is not encrypted; the file names their network.
    assert "over 192.168.1.0/24, which global.trusted_networks names" in "\n".join(program.log)
    # They change one by one, as on one member.
    assert "ai-tools/stt/stt_server/verify" in (
        program.commands[f"{other}/stt_server/service"].dependencies
    )
    # The one on the other member is tried at its published address, once it has changed itself.
    tried = f"ai-tools/gateway/stt_gateway/server-{server.removeprefix('http://')}".replace(
        ":", "-"
    )
    assert {f"{other}/stt_server/{part}" for part in ("service", "verify")} <= set(
        program.commands[tried].dependencies
    )
    live = replace(cluster_after(program), members=CARDS.members)
    again = run("gpu", live, program, infra=file, gateway=gateway)
    assert not again.changes(program) and not again.drift
    # A member that is away is not asked.
    alone = run("gpu", without_node2(program), program, infra=file, gateway=gateway)
    assert not alone.changes(program) and not alone.drift


def test_a_server_on_a_member_that_is_away_is_tried_once_it_is_back(
    written: Callable[..., str],
) -> None:
    file, name = written(TWO_DOMAINS), "ai-tools/gateway/stt_gateway/server-192.168.1.12-8000"
    first = run("gpu", CARDS, infra=file, gateway=GATEWAY)
    # What it is tried with changes: the key, and what the recording is to come back as.
    options: dict[str, Any] = {
        **{"infra": file, "gateway": GATEWAY, "check": {"words": ""}},
        **{"apiKey": "another-key-0123456789", "secret": True},
    }
    changed = run("gpu", without_node2(first), first, **options)
    assert name in changed.commands and name not in changed.changes(first)
    assert "ai-tools/gateway/stt_gateway/servers-key" in changed.changes(first)
    assert not run("gpu", without_node2(changed), changed, **options).changes(changed)
    back = run("gpu", replace(cluster_after(changed), members=CARDS.members), changed, **options)
    assert back.changes(changed)[name] == "update"
    assert "words" in changed.commands[name].spec and "words" not in back.commands[name].spec
    assert "ai-more/stt/stt_server/verify" in back.changes(changed)


def test_a_new_server_on_a_member_that_is_away_is_tried_once_it_is_back(
    written: Callable[..., str],
) -> None:
    file, name = written(TWO_DOMAINS), "ai-tools/gateway/stt_gateway/server-192.168.1.12-8000"
    first = run("gpu", CARDS, infra=file)
    named = run("gpu", without_node2(first), first, infra=file, gateway=GATEWAY)
    assert name not in named.commands and named.changes(first)
    live = replace(cluster_after(named), members=CARDS.members)
    assert run("gpu", live, named, infra=file, gateway=GATEWAY).done[name] == "create"


def test_a_card_that_a_member_lacks_is_named(written: Callable[..., str]) -> None:
    with pytest.raises(pulumi.RunError) as caught:
        run("gpu", CLUSTER, infra=written(IN_CLUSTER))
    said = str(caught.value)
    for machine, part, member in (
        ("stt", "ai-tools", "node1"),
        ("stt-more", "ai-tools-2", "node2"),
    ):
        assert (
            f"domains.ai-tools.machines.{machine}.gpu: is true, and {part}/{machine} is to be on "
            f"{member}"
        ) in said
    assert "(`incus info --resources --target node2`). Members with one: node3." in said
