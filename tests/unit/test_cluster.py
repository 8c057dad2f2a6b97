"""A cluster of Incus: where domains are, each member's cards, and a member that is away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml

from agent.difference import Difference
from host.read import Live
from tests.unit.cluster import BARE, CLUSTER, HARDWARE, MEMBERS, cluster_after
from tests.unit.program import (
    EMPTY_HOST,
    Program,
    host_after,
    host_with,
    run,
    with_differences,
    words_of,
)
from tests.unit.values import CARD

STT = ["base_system", "stt_server"]
Infra = Callable[..., str]


@pytest.fixture
def infra(tmp_path: Path) -> Infra:
    """Makes a topology of domains with these machines; returns its path."""

    def write(**domains: dict[str, Any]) -> str:
        card = {"devices": {"gpu": {"type": "gpu", "gputype": "physical"}}}
        topology = {
            "domains": {
                name: {
                    "trust_level": "semi-trusted",
                    "subnet": f"10.120.{number}.0/24",
                    "profiles": {"card": card},
                    "machines": machines,
                }
                for number, (name, machines) in enumerate(domains.items())
            }
        }
        file = tmp_path / "infra.yml"
        file.write_text(yaml.safe_dump(topology, sort_keys=False))
        return str(file)

    return write


def server(member: str = "", **more: Any) -> dict[str, Any]:
    """A machine with the STT service."""
    return {"roles": STT, **({"member": member} if member else {}), **more}


def away(name: str, status: str, live: Live = CLUSTER) -> Live:
    """The cluster with a member that is not online."""
    members = {**live.members, name: replace(live.members[name], status=status, resources={})}
    return replace(live, members=members)


def member_of(program: Program, machine: str) -> str:
    """Where a machine is to be, as its desired state says."""
    return str(program.commands[f"{machine}/instance"].data["member"])


def refused(text: str, live: Live, infra: str, **options: Any) -> str:
    """What the program says when it refuses."""
    with pytest.raises(pulumi.RunError, match=text) as caught:
        run("cpu", live, infra=infra, **options)
    return str(caught.value)


def test_a_domain_is_on_one_member_with_its_volumes(infra: Infra) -> None:
    file = infra(one={"a": server("node2"), "b": server()}, two={"c": server("@gpu")})
    program = run("cpu", CLUSTER, infra=file)
    # node2 has two machines by then, and node3 none.
    members = {"one/a": "node2", "one/b": "node2", "two/c": "node3"}
    assert program.outputs["members"] == members
    assert {name: member_of(program, name) for name in members} == members
    volume = words_of(program.commands["two/volume/models"])
    assert volume[volume.index("--member") + 1] == "node3"
    again = run("cpu", cluster_after(program), program, infra=file)
    assert not again.changes(program) and not again.drift


def test_a_machine_may_take_of_its_member_s_memory(infra: Infra) -> None:
    memory = {"memory": {"total": 4 * 2**30}}
    node2 = replace(CLUSTER.members["node2"], resources={**BARE, **memory})
    live = replace(CLUSTER, members={**CLUSTER.members, "node2": node2})
    log = "\n".join(run("cpu", live, infra=infra(one={"a": server("node2")})).log)
    assert "the machine may take 3.6 GiB (limits.memory 90%): fits" in log
    log = "\n".join(run("cpu", live, infra=infra(one={"a": server("node1")})).log)
    assert "may take" not in log  # it does not tell


def test_without_a_cluster_nothing_names_a_member(infra: Infra) -> None:
    program = run("cpu", infra=infra(one={"a": server()}))
    assert "members" not in program.outputs
    assert not [
        name for name, each in program.commands.items() if "member" in each.inputs["create"]
    ]
    assert "member" not in program.commands["one/a/instance"].data
    said = refused("member", EMPTY_HOST, infra(one={"a": server("@gpu")}))
    assert 'machines.a.member: "@gpu" is for a cluster of Incus, and this host is in none.' in said


def test_a_domain_stays_where_it_was_put(infra: Infra) -> None:
    file = infra(one={"a": server("@default")}, two={"c": server("@default")})
    first = run("cpu", CLUSTER, infra=file)
    assert first.outputs["members"] == {"one/a": "node1", "two/c": "node2"}
    # Others have come meanwhile, and a machine was moved by hand: it comes back.
    live = cluster_after(first)
    moved = {"location": "node3", "member": "node3"}
    place = ("instance", "two", "c")
    strangers = {("instance", "x", str(n)): {"location": "node2"} for n in range(5)}
    live = replace(
        live, objects={**live.objects, **strangers, place: {**live.objects[place], **moved}}
    )
    again = run("cpu", live, first, infra=file, late=live.machines)
    assert again.drift == {"two/c/instance": ["member: node3 -> node2"]}
    assert list(again.changes(first)) == ["two/c/instance"]
    # A member that is named wins: the machine moves there.
    live, other = cluster_after(first), infra(one={"a": server()}, two={"c": server("node3")})
    named = run("cpu", live, first, infra=other, late=live.machines)
    changes = {"two/c/instance": "update", "two/volume/models": "update"}
    assert named.changes(first) == changes


def test_what_a_move_changes_inside_is_mended_by_the_same_run(infra: Infra) -> None:
    first = run("cpu", CLUSTER, infra=infra(one={"a": server("node1")}))
    live = cluster_after(first)
    changed = Difference("/srv/models", "mode 711", "mode 755")
    late = with_differences(live, "one/a/stt_server/user", changed).machines
    moved = run("cpu", live, first, infra=infra(one={"a": server("node2")}), late=late)
    assert moved.drift["one/a/stt_server/user"] == [str(changed)]
    assert {"one/a/stt_server/user", "one/a/stt_server/verify"} <= set(moved.changes(first))


@pytest.mark.parametrize(
    ("member", "live", "why"),
    [
        ("node4", CLUSTER, '"node4" is not a member of the cluster. Did you mean'),
        ("@gpus", CLUSTER, '"@gpus" is a group without members, or is not a group of the cluster.'),
        (
            "node3",
            away("node3", "Offline"),
            "a is to be made on node3, which is offline. Start node3",
        ),
        (
            "",
            CLUSTER,
            "one names no member, and this host is in a cluster: node1, node2, node3. Say",
        ),
        ("node3", away("node3", "Evacuated"), "which is evacuated. incus cluster restore node3"),
        (
            "@gpu",
            away("node2", "Offline", away("node3", "Offline")),
            'none of the members of "@gpu" is online: node2 (offline), node3 (offline).',
        ),
        (
            "node1",
            away("node3", "Offline"),
            "its bridge net-one is to be made on every member of the",
        ),
    ],
)
def test_what_cannot_be_is_refused(infra: Infra, member: str, live: Live, why: str) -> None:
    assert why in refused("nothing on the host was touched", live, infra(one={"a": server(member)}))


def test_each_member_has_its_own_cards(infra: Infra) -> None:
    card = {"gpu": True, "profiles": ["default", "card"]}
    program = run("gpu", CLUSTER, infra=infra(one={"a": server("node3", **card)}))
    variables = program.commands["one/a/stt_server/service"].spec["variables"]
    assert variables["WHISPER__INFERENCE_DEVICE"] == "cuda"
    with pytest.raises(pulumi.RunError) as caught:
        run("gpu", CLUSTER, infra=infra(one={"a": server("node2", **card)}))
    assert "one/a is to be on node2, where Incus sees no NVIDIA card" in str(caught.value)
    assert "Members with one: node3." in str(caught.value)
    # Of a group, it goes to a member with a card, whatever else is there.
    anywhere = infra(one={"a": server("@default", **card)}, two={"b": server("@default")})
    assert run("gpu", CLUSTER, infra=anywhere).outputs["members"] == {
        "one/a": "node3",
        "two/b": "node1",
    }
    # One card for each of two machines; both of one member are one too many.
    two = {
        name: {"a": server(where, **card)} for name, where in (("one", "@gpu"), ("two", "node3"))
    }
    both = replace(
        CLUSTER, members={**MEMBERS, "node2": replace(MEMBERS["node2"], resources=HARDWARE)}
    )
    assert run("gpu", both, infra=infra(**two)).outputs["members"] == {
        "one/a": "node2",
        "two/a": "node3",
    }
    two["one"]["a"]["member"] = "@gpu"
    two["two"]["a"]["member"] = "node2"
    with pytest.raises(pulumi.RunError, match="exclusive"):
        run("gpu", both, infra=infra(**two))


@pytest.mark.parametrize("host", [CLUSTER, replace(host_with(CARD), nvidia_smi="")])
def test_a_machine_tells_of_a_card_where_nvidia_smi_is_not_asked(infra: Infra, host: Live) -> None:
    """On another member of a cluster, and on a host that is reached through Incus."""
    where = {"one": "node3", "two": "node1"} if host.members else {"one": "", "two": ""}
    one = server(where["one"], gpu=True, profiles=["default", "card"])
    file = infra(one={"a": one}, two={"b": server(where["two"])})
    before = run("gpu", host, infra=file)
    assert "Whether large-v3-turbo in float16 fits was not checked" in "\n".join(before.log)
    live = cluster_after(before) if host.members else replace(host_after(before), nvidia_smi="")

    def log(place: tuple[str, str], mib: int) -> str:
        row = f"0000{CARD.pci}, {CARD.name}, {mib}, 8.9, 560.35.03\n"
        machines = {**live.machines, place: replace(live.machines[place], cards=row)}
        return "\n".join(run("gpu", replace(live, machines=machines), before, infra=file).log)

    assert "a: RTX 4090 (12.0 GiB, compute capability 8.9, driver 560.35.03)" in log(
        ("one", "a"), 12288
    )
    with pytest.raises(pulumi.RunError, match="does not fit on RTX 4090"):
        log(("one", "a"), 1024)
    if host.members:  # what node1's machine says of a card is nothing of node3's
        assert "fits was not checked" in log(("two", "b"), 12288)


@pytest.mark.parametrize("status", ["Offline", pytest.param("Evacuated", marks=pytest.mark.sweep)])
def test_what_is_on_a_member_that_is_away_is_left_as_it_is(infra: Infra, status: str) -> None:
    file = infra(one={"a": server("node2")}, two={"c": server("node3")})
    first = run("cpu", CLUSTER, infra=file)
    live = away("node3", status, cluster_after(first))
    place = ("instance", "two", "c")
    stopped = {**live.objects[place], "status": "Error"}
    live = replace(live, objects={**live.objects, place: stopped})
    del live.machines["two", "c"]  # type: ignore[attr-defined]  # a dict
    quiet = run("cpu", live, first, infra=file)
    assert not quiet.changes(first) and not quiet.drift
    assert (
        f"two is left as it is: its machines are on node3, which is {status.lower()}."
        in "\n".join(quiet.log)
    )
    # Incus changes no network while a member does not answer.
    waits = "one: a step that fetches something, such as another engine or model, fails: its bridge"
    assert (waits in "\n".join(quiet.log)) == (status == "Offline")
    assert "two: a step that fetches" not in "\n".join(quiet.log)
    # Another engine: its steps come on the other member, and wait on this one.
    changed = run("cpu", live, first, infra=file, engine="faster-whisper", model="tiny")
    touched = {name.partition("/")[0] for name in changed.changes(first)}
    assert touched == {"one"}
    assert set(changed.outputs["members"]) == {"one/a", "two/c"}
    back = run(
        "cpu", cluster_after(first), changed, infra=file, engine="faster-whisper", model="tiny"
    )
    assert {name.partition("/")[0] for name in back.changes(changed)} >= {"two"}
    assert "two/c/stt_server/service" in back.changes(changed)


def test_an_address_and_a_rule_that_reach_over_members(infra: Infra, tmp_path: Path) -> None:
    file = infra(one={"a": server("node2")}, two={"c": server("node3")})
    topology = yaml.safe_load(Path(file).read_text())
    topology["policy"] = [{"from": "two", "to": "one/a", "ports": [8000]}]
    Path(file).write_text(yaml.safe_dump(topology))
    nic = {"type": "nic", "network": "net-one", "ipv4.address": "10.120.0.1"}
    guest = {"location": "node1", "devices": {"eth0": nic}, "status": "Running"}
    live = replace(CLUSTER, objects={("instance", "default", "guest"): guest})
    said = refused("nothing on the host was touched", live, file)
    assert "policy.0: two is on node3 and one on node2, and a bridge does not reach" in said
    assert "its address 10.120.0.1 is that of guest (project default, on node1) too" in said


def test_an_address_that_a_stranger_has_from_a_profile(infra: Infra) -> None:
    nic = {"type": "nic", "network": "net-one", "ipv4.address": "10.120.0.1"}
    guest = {"location": "node1", "devices": {}, "expanded_devices": {"eth0": nic}}
    live = replace(CLUSTER, objects={("instance", "default", "guest"): guest})
    said = refused("nothing on the host was touched", live, infra(one={"a": server("node2")}))
    assert "its address 10.120.0.1 is that of guest (project default, on node1) too" in said


def test_machines_of_one_domain_name_one_member(infra: Infra) -> None:
    said = refused("member", CLUSTER, infra(one={"a": server("node2"), "b": server("node3")}))
    assert 'machines.b.member: "node3" is not where a is ("node2")' in said


def test_a_plain_host_that_turns_out_to_be_in_a_cluster(infra: Infra) -> None:
    """What is on it stays there; what is to be made has to say where."""
    file = infra(one={"a": server()})
    first = run("cpu", infra=file)
    said = refused("nothing on the host was touched", CLUSTER, file, before=first)
    assert "one names no member, and this host is in a cluster: node1, node2, node3" in said
    there = host_after(first, CLUSTER)
    place = ("instance", "one", "a")
    joined = {**there.objects, place: {**there.objects[place], "location": "node2"}}
    program = run("cpu", replace(there, objects=joined), first, infra=file)
    assert program.outputs["members"] == {"one/a": "node2"}


def test_of_one_member_none_has_to_be_named(infra: Infra) -> None:
    only = replace(CLUSTER, members={"node1": MEMBERS["node1"]})
    program = run("cpu", only, infra=infra(one={"a": server()}))
    assert program.outputs["members"] == {"one/a": "node1"}


def test_a_cluster_that_turns_out_to_be_a_plain_host(infra: Infra) -> None:
    file = infra(one={"a": server("node2")})
    first = run("cpu", CLUSTER, infra=file)
    assert "this host is in none" in refused("member", EMPTY_HOST, file, before=first)
    other = run("cpu", EMPTY_HOST, first, infra=infra(one={"a": server()}))
    said = "one was on node2 of a cluster, and this host is in none: it is made again here."
    assert said in "\n".join(other.log)
