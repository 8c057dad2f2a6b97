"""Domains on several members of a cluster: their parts, and what these ask each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from declaration.environment import environment_of
from declaration.infra import load_infra
from declaration.problems import DeclarationError
from declaration.topology import Topology, plan_topology
from doctor.__main__ import findings
from doctor.finding import Mark
from host.objects import MARK
from roles import ROLES
from stack.declare import declare
from tests.unit.cluster import CLUSTER, cluster_after
from tests.unit.doctor_case import good_case
from tests.unit.program import EMPTY_HOST, Program, run
from tests.unit.values import CPU

MEMBERS = {"node1": "192.168.1.11", "node2": "192.168.1.12", "node3": "192.168.1.13"}
BASE = "base_system"
STT, OLLAMA = [BASE, "stt_server"], [BASE, "ollama_server"]
GATEWAY, WEBUI = [BASE, "stt_gateway"], [BASE, "open_webui"]
#: A gateway with a server beside it, and two on another member.
POOL: dict[str, Any] = {
    "stt": {"roles": STT},
    "gateway": {"roles": GATEWAY},
    "far": {"roles": STT, "member": "node2", "count": 2},
}
Infra = Callable[..., str]


@pytest.fixture
def infra(tmp_path: Path) -> Infra:
    """Makes a topology with a domain ``lab`` at node1; returns its path.

    ``domain`` has more keys of it, ``more`` further domains, ``policy`` the rules; the rest is for
    ``global``.
    """

    def write(
        machines: Mapping[str, Any],
        domain: Mapping[str, Any] | None = None,
        more: Mapping[str, Any] | None = None,
        policy: Any = (),
        **keys: Any,
    ) -> str:
        lab = {"trust_level": "semi-trusted", "member": "node1", **(domain or {})}
        topology = {
            "global": {"members": MEMBERS, **keys},
            "policy": list(policy),
            "domains": {"lab": {**lab, "machines": machines}, **(more or {})},
        }
        file = tmp_path / "infra.yml"
        file.write_text(yaml.safe_dump(topology, sort_keys=False))
        return str(file)

    return write


def other(machines: Mapping[str, Any], **keys: Any) -> dict[str, Any]:
    """Another domain."""
    return {"trust_level": "semi-trusted", "machines": machines, **keys}


def planned(file: str, environment: str = "") -> Topology:
    """The topology of a file."""
    read = load_infra(Path(file), "infra.yml")
    chosen = environment_of(environment, read, "infra.yml")
    return plan_topology(read, ROLES, "infra.yml", chosen)


def refused(file: str, **settings: Any) -> list[str]:
    """What is wrong with a stack."""
    with pytest.raises(DeclarationError) as caught:
        declare({**CPU, "infra": file, **settings}, ROLES, Path("/"))
    return [str(each).replace(file, "infra.yml") for each in caught.value.problems]


def links(file: str, **settings: Any) -> list[tuple[str, str, str]]:
    """Who asks whom of another part, and at which URL."""
    topology = declare({**CPU, "infra": file, **settings}, ROLES, Path("/")).topology
    return [(each.asking, each.to, each.url) for each in topology.links]


def published(program: Program, machine: str) -> dict[str, tuple[str, str]]:
    """Where each proxy device of a machine listens and leads to."""
    devices = program.commands[f"{machine}/instance"].data["devices"]
    return {
        name: (each["listen"], each["connect"])
        for name, each in devices.items()
        if each["type"] == "proxy" and each.get("nat") == "true"
    }


def let_in(program: Program, domain: str, device: str) -> list[tuple[str, str, str]]:
    """Source, destination and port of the rules of a domain's bridge about a device."""
    return [
        (each["source"], each["destination"], each["destination_port"])
        for each in program.commands[f"{domain}/acl"].data["ingress"]
        if each["description"] == f"device {device}"
    ]


# The parts


def test_machines_on_another_member_are_a_part_of_the_domain(infra: Infra) -> None:
    machines = {
        "a": {},
        "b": {"member": "node3", "count": 2},
        "c": {"member": "node2"},
        "d": {"count": 2},
    }
    domain = {"egress": "closed", "profiles": {"small": {}}, "description": "The lab"}
    topology = planned(infra(machines, domain, more={"two": other({"a": {}})}))
    parts = {each.name: each for each in topology.domains}
    assert {
        name: (each.member, str(each.subnet), [machine.name for machine in each.machines])
        for name, each in parts.items()
    } == {
        "lab": ("node1", "10.120.0.0/24", ["a", "d", "d-2"]),
        "lab-2": ("node2", "10.120.30.0/24", ["c"]),
        "lab-3": ("node3", "10.120.29.0/24", ["b", "b-2"]),
        "two": ("", "10.120.1.0/24", ["a"]),
    }
    assert list(parts) == ["lab", "lab-2", "lab-3", "two"]
    part = parts["lab-3"]
    assert (part.bridge, part.domain.egress, part.domain.description) == (
        "net-lab-3",
        "closed",
        "The lab",
    )
    assert list(part.profiles) == ["small"]
    assert part.machines[0].place == "domains.lab.machines.b"
    assert [str(each.address) for each in part.machines] == ["10.120.29.1", "10.120.29.99"]


def test_a_subnet_in_the_file_is_that_of_the_domain_s_own_member(infra: Infra) -> None:
    domains = planned(infra({"b": {"member": "node2"}}, {"subnet": "10.9.8.0/24"})).domains
    assert [str(each.subnet) for each in domains] == ["10.9.8.0/24", "10.120.30.0/24"]


#: A domain that is on two members too.
TWO = {
    "two": {
        "trust_level": "semi-trusted",
        "member": "node1",
        "machines": {"a": {}, "b": {"member": "node2"}},
    }
}
GATE = {"roles": GATEWAY}


def far(member: str) -> dict[str, Any]:
    """An STT server on a member."""
    return {"roles": STT, "member": member}


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"x": far("node3")}, {"machines": {"y": far("node2")}}),
        ({"x": far("node3")}, {"more": TWO}),
        ({"x": far("node3")}, {"machines": {"x": far("node2")}}),
        (
            {"b": far("node2"), "c": far("node1")},
            {
                "domain": {"member": "node2"},
                # c has left .2 by then, and is not removed yet.
                "machines": {"b": {**far("node2"), "ip": "10.120.0.9"}},
            },
        ),
        (
            {"x": far("node3")},
            {"members": {name: MEMBERS[name] for name in ("node1", "node3")}},
        ),
        ({"x": far("node3")}, {"environments": ["live", "staging"]}),
    ],
)
def test_what_a_part_s_subnet_does_not_depend_on(infra: Infra, before: Any, after: Any) -> None:
    """Another part, domain, member or environment, before or after it: each `up` is accepted."""
    machines = {"g": GATE, **before}
    later = {**after, "machines": {**machines, **after.get("machines", {})}}

    def subnets(**keys: Any) -> dict[str, str]:
        return {each.name: str(each.subnet) for each in planned(infra(**keys)).domains}

    was, then = subnets(machines=machines), subnets(**later)
    assert {name: then[name] for name in was if name in then} == {
        name: subnet for name, subnet in was.items() if name in then
    }
    for one, two in ((({"machines": machines}), later), (later, {"machines": machines})):
        first = run("cpu", CLUSTER, infra=infra(**one))
        assert run("cpu", cluster_after(first), first, infra=infra(**two)).commands


def test_a_part_whose_own_subnet_is_taken_gets_the_last_one_that_is_free(infra: Infra) -> None:
    machines = {"a": {"member": "node2"}, "b": {"member": "node3"}}
    pinned = {"p": other({}, subnet="10.120.30.0/24")}
    found = {each.name: str(each.subnet) for each in planned(infra(machines, more=pinned)).domains}
    # lab-3 keeps its own, although lab-2 comes before it.
    assert (found["lab-2"], found["lab-3"]) == ("10.120.31.0/24", "10.120.29.0/24")
    # The fifth domain of a level has none of its own, and neither has the ninth part.
    before = {f"d{number}": other({}) for number in range(3)}
    late = {"late": other({"a": {"member": "node2"}}, member="node1")}
    found = {
        each.name: str(each.subnet) for each in planned(infra({}, more={**before, **late})).domains
    }
    assert found["late-2"] == "10.120.31.0/24"
    found = {
        each.name: str(each.subnet)
        for each in planned(infra({}, more={**dict(list(before.items())[:2]), **late})).domains
    }
    assert found["late-2"] == "10.120.6.0/24"
    many = {f"m{number}": f"192.168.1.{number}" for number in range(1, 10)}
    nine = {"a": {"member": "m9"}, "b": {"member": "m8"}}
    file = infra(nine, {"member": "m1"}, members=many)
    found = {each.name: str(each.subnet) for each in planned(file).domains}
    assert (found["lab-8"], found["lab-9"]) == ("10.120.24.0/24", "10.120.31.0/24")
    # Where the first 32 are full, further ones are there without environments only.
    full = {f"d{number}": other({}) for number in range(31)}
    [*_, last] = planned(infra(machines, more={})).domains
    assert str(last.subnet) == "10.120.29.0/24"
    found = {each.name: str(each.subnet) for each in planned(infra(machines, more=full)).domains}
    assert (found["lab-2"], found["lab-3"]) == ("10.120.255.0/24", "10.120.254.0/24")
    said = refused(infra(machines, more=full, environments=["live"]))
    assert said[0] == (
        "infra.yml: domains.lab: no subnet 10.120.x.0/24 for its part lab-2 is free or exists for "
        "trust level semi-trusted. Lower global.addressing.zone_base or zone_step."
    )


def test_a_part_s_subnet_that_is_not_private(infra: Infra) -> None:
    """Nothing names another: its domain's ``subnet`` is not its own."""
    file = infra(POOL, {"subnet": "10.9.8.0/24"}, addressing={"base_octet": 11})
    assert refused(file) == [
        "infra.yml: domains.lab: its subnet 11.120.30.0/24 of its part lab-2, which follows from "
        "global.addressing, is not private. Change base_octet, zone_base or zone_step: private is "
        "what is in one of 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16."
    ]


def test_a_domain_whose_machines_are_all_where_it_is_has_no_parts(infra: Infra) -> None:
    for member in ("node1", "node4", "@gpu"):
        machines = {"a": {}, "b": {"member": member}}
        [lab] = planned(infra(machines, {"member": member})).domains
        assert (lab.name, lab.member, len(lab.machines)) == ("lab", member, 2)


def test_a_part_in_another_environment(infra: Infra) -> None:
    file = infra(POOL, environments=["live", "staging"])
    assert [(each.name, each.bridge, str(each.subnet)) for each in planned(file).domains] == [
        ("lab", "net-lab", "10.120.0.0/24"),
        ("lab-2", "net-lab-2", "10.120.30.0/24"),
    ]
    staging = planned(file, "staging").domains
    assert [(each.name, each.bridge, str(each.subnet)) for each in staging] == [
        ("lab-staging", "net1-lab", "10.120.32.0/24"),
        ("lab-2-staging", "net1-lab-2", "10.120.62.0/24"),
    ]
    found = links(file, environment="staging")
    assert found[0][2] == "http://192.168.1.12:8100"


def test_a_renamed_domain_renames_its_parts(infra: Infra) -> None:
    machines = {"b": {"member": "node2", "formerly": "a"}}
    topology = planned(infra(machines, {"formerly": "old"}))
    assert topology.former_name("lab-2/b/instance") == "old-2/a/instance"
    assert topology.domains[1].former_bridge == "net-old-2"


@pytest.mark.parametrize(
    ("machines", "domain", "more", "place", "why"),
    [
        ({"b": {"member": "@gpu"}}, {}, {}, ".machines.b.member", '"@gpu" is a group, and'),
        ({"b": {"member": "node2"}}, {"member": "@gpu"}, {}, ".member", '"@gpu" is a group'),
        (
            {"b": {"member": "node4"}},
            {},
            {},
            ".machines.b.member",
            '"node4" has no address in global.members, and machines of this domain on other '
            'members would ask there. Did you mean "node',
        ),
        (
            {"b": {"member": "node2"}},
            {"member": "attic"},
            {},
            ".member",
            '"attic" has no address in global.members',
        ),
        (
            {"b": {"member": "node2"}},
            {},
            {"lab-2": other({})},
            "",
            "its machines on node2 are the part lab-2 of it, and there is a domain of that name.",
        ),
        (
            {"b": {"member": "node2", "ip": "10.120.0.4"}},
            {},
            {},
            ".machines.b.ip",
            "10.120.0.4 is not allowed. Use one of 10.120.30.1 to 10.120.30.99.",
        ),
        (
            {"b": {"count": 2}, "b-2": {"member": "node2"}},
            {},
            {},
            ".machines.b-2",
            "makes a machine b-2, and so does b. Give one of them another name.",
        ),
        (
            {"a": {}, "b": {"member": "node2"}},
            {"member": None},
            {},
            "",
            "",
        ),
    ],
)
def test_parts_that_cannot_be(
    infra: Infra, machines: Any, domain: Any, more: Any, place: str, why: str
) -> None:
    if domain.get("member", "") is None:  # nobody says where the domain is: as ever
        machines["a"]["member"] = "node1"
        place, why = ".machines.b.member", '"node2" is not where a is ("node1")'
    [said] = refused(infra(machines, domain, more))  # and nothing else
    assert said.startswith(f"infra.yml: domains.lab{place}: {why}")


def test_a_domain_s_name_leaves_room_for_its_part_s(infra: Infra) -> None:
    topology = yaml.safe_load(Path(infra({"b": {"member": "node2"}})).read_text())
    topology["domains"] = {"ai-machines": topology["domains"]["lab"]}
    file = infra({})
    Path(file).write_text(yaml.safe_dump(topology))
    assert refused(file) == [
        "infra.yml: domains.ai-machines: its machines on node2 are the part ai-machines-2 of it, "
        "whose bridge net-ai-machines-2 would have 17 characters, and an interface name has at "
        "most 15. Use a name of at most 9 characters."
    ]


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ({"@gpu": "192.168.1.1"}, '"@gpu" is a group. Name its members, each with its address'),
        ({"node1": "127.0.0.1"}, "127.0.0.1 of node1 is not where other members reach it."),
        *(
            ({"node1": address}, f"{address} of node1 is not where other members reach it.")
            for address in ("0.0.0.0", "0.1.2.3", "224.0.0.1", "250.1.1.1", "255.255.255.255")
        ),
        ({"node1": "203.0.113.4"}, "203.0.113.4 of node1 is on the internet, from where nobody"),
        (
            {"node1": "10.120.0.7"},
            "global.members.node1: 10.120.0.7 is in the subnet 10.120.0.0/24 of lab, and is not "
            "where other members reach node1. Use the address that `incus cluster list` shows.",
        ),
        ({"node1": "192.168.1.1", "node2": "192.168.1.1"}, "192.168.1.1 is the address of node1"),
        ({"node1": "here"}, "global.members.node1"),
        ({"no de": "192.168.1.1"}, '"no de" names no member of a cluster.'),
    ],
)
def test_addresses_of_members_that_are_none(infra: Infra, members: Any, why: str) -> None:
    [said] = refused(infra({}, members=members))
    assert why in said


def test_a_role_that_one_machine_has_is_on_one_in_all_parts(infra: Infra) -> None:
    [said] = refused(infra({**POOL, "more": {"roles": GATEWAY, "member": "node3"}}))
    assert "the machines gateway, more have the role stt_gateway" in said


def test_rules_of_policy_are_about_each_part(infra: Infra) -> None:
    policy = [
        {"from": "192.168.9.0/24", "to": "lab", "ports": [8000]},
        {"from": "lab/far", "to": "192.168.1.5", "ports": [3142]},
    ]
    flows = planned(infra(POOL, policy=policy)).policy
    assert [(each.names, each.destinations, each.why) for each in flows] == [
        (("192.168.9.0/24", "lab"), ("10.120.0.0/24",), "policy.0"),
        (("192.168.9.0/24", "lab-2"), ("10.120.30.0/24",), "policy.0"),
        (("lab-2/far", "192.168.1.5"), ("192.168.1.5/32",), "policy.1"),
    ]
    assert flows[2].sources == ("10.120.30.1/32", "10.120.30.99/32")


def test_a_rule_that_leads_to_a_part_on_another_member_is_refused(infra: Infra) -> None:
    policy = [
        {"from": "192.168.9.0/24", "to": "lab", "ports": [8000]},
        {"from": "office", "to": "lab/stt", "ports": [8000]},
        {"from": "office", "to": "lab/far", "ports": [8000]},
    ]
    office = other({"desk": {}}, trust_level="trusted", member="node1")
    with pytest.raises(Exception, match="nothing on the host was touched") as caught:
        run("cpu", CLUSTER, infra=infra(POOL, more={"office": office}, policy=policy))
    said = str(caught.value)
    assert (
        "policy.2: office is on node1 and lab-2 on node2, and a bridge does not reach from one "
        "member to another. Name what is on the same member, or have the service published"
    ) in said
    assert "policy.1" not in said and "policy.0" not in said


def test_a_rule_for_a_domain_is_about_the_parts_that_it_can_lead_to(infra: Infra) -> None:
    """It stays good where a machine of the domain goes to another member."""
    policy = [
        {"from": "office", "to": "lab", "ports": [8000]},
        {"from": "lab", "to": "lab", "ports": [9]},
        {"from": "any", "to": "lab", "ports": [9]},
    ]
    more = {
        "office": other({"desk": {}}, trust_level="trusted", member="node1"),
        # Where that comes to be, only the cluster tells.
        "any": other({"desk": {}}, trust_level="trusted", member="@default"),
    }
    two = replace(CLUSTER, members={name: CLUSTER.members[name] for name in ("node1", "node2")})
    program = run("cpu", two, infra=infra(POOL, more=more, policy=policy))
    assert program.outputs["members"]["any/desk"] == "node2"
    allowed = program.outputs["allowed_traffic"]
    assert {each for each in allowed if each.startswith(("office", "any", "lab"))} >= {
        "office -> lab: tcp 8000",
        "lab -> lab: tcp 9",
        "lab-2 -> lab-2: tcp 9",
        "any -> lab-2: tcp 9",
    }
    assert not {"office -> lab-2: tcp 8000", "lab -> lab-2: tcp 9"} & set(allowed)
    policy = [{"from": "lab/gateway", "to": "lab/far", "ports": [8000]}]
    with pytest.raises(Exception, match="nothing on the host was touched") as caught:
        run("cpu", CLUSTER, infra=infra(POOL, policy=policy))
    assert (
        "lab is on node1 and lab-2 on node2, and a bridge does not reach from one member to "
        "another. What one part of a domain uses of another is published and let in without a rule"
    ) in str(caught.value)


def test_a_domain_that_names_a_member_where_there_is_no_cluster(infra: Infra) -> None:
    with pytest.raises(Exception, match="is in none") as caught:
        run("cpu", EMPTY_HOST, infra=infra({"a": {}, "b": {"member": "node2"}}))
    said = str(caught.value)
    assert 'domains.lab.member: "node1" is for a cluster of Incus' in said
    assert 'machines.b.member: "node2" is for a cluster of Incus' in said
    with pytest.raises(Exception, match="nothing on the host was touched") as caught:
        run("cpu", CLUSTER, infra=infra({"a": {}}, {"member": "attic"}))
    assert 'domains.lab.member: "attic" is not a member of the cluster.' in str(caught.value)


@pytest.mark.parametrize("environment", ["", "staging"])
def test_a_machine_that_leaves_lets_the_others_keep_their_addresses(
    infra: Infra, environment: str
) -> None:
    """It is removed last, so what the message says has to work."""
    keys: Any = {"environments": ["live", "staging"]} if environment else {}
    lab = "lab-staging" if environment else "lab"
    here = {"stt": {"roles": STT}, "more": {"roles": STT}, "gateway": GATE}
    first = run("cpu", CLUSTER, infra=infra(here, **keys), environment=environment)
    live = cluster_after(first)
    gone = {**here, "stt": far("node2")}
    with pytest.raises(Exception, match="nothing on the host was touched") as caught:
        run("cpu", live, first, infra=infra(gone, **keys), environment=environment)
    said = str(caught.value)
    third = "32" if environment else "0"
    part = "lab-2-staging" if environment else "lab-2"
    assert (
        f"domains.lab.machines.more: its address 10.120.{third}.1 is still that of stt, which this "
        f"`make up` makes anew in {part} and removes here last. Let those that stay keep theirs, "
        "with ip: 10.120.0.2 to more, 10.120.0.3 to gateway."
    ) in said
    ips = {"more": "10.120.0.2", "gateway": "10.120.0.3"}
    kept = {name: {**each, "ip": ips[name]} if name in ips else each for name, each in gone.items()}
    then = run("cpu", live, first, infra=infra(kept, **keys), environment=environment)
    assert f"{lab}/gateway/instance" not in then.changes(first)
    # One that is new there, or with a count, gets another.
    for machines in (
        {"new": {}, "stt": far("node2"), "more": {"roles": STT}, "gateway": GATE},
        {"stt": far("node2"), "more": {"roles": STT, "count": 2}, "gateway": GATE},
    ):
        with pytest.raises(Exception, match="is still that of stt") as caught:
            run("cpu", live, first, infra=infra(machines, **keys), environment=environment)
        taking = next(iter({**machines} if "new" in machines else {"more": 0}))
        assert f"Give {taking} another ip:." in str(caught.value)


def test_a_part_s_subnet_that_somebody_else_has(infra: Infra) -> None:
    """What is said to do can be done: a part has no ``subnet``."""
    what = "It is that of the part lab-2: change global.addressing, or what has it there."
    eth1 = replace(CLUSTER, addresses={"eth1": ["10.120.30.7/24"]})
    ours = {"ipv4.address": "10.120.30.254/24", **MARK}
    network = replace(CLUSTER, networks={**CLUSTER.networks, "net-old": ours})
    for live in (eth1, network):
        with pytest.raises(Exception, match="nothing on the host was touched") as caught:
            run("cpu", live, infra=infra(POOL))
        [said] = [each for each in str(caught.value).splitlines() if "its subnet" in each]
        assert said.endswith(what)


def test_what_doctor_says_of_a_part_s_subnet_that_is_taken(infra: Infra) -> None:
    file = infra({"webui": {"roles": WEBUI}, "far": {"member": "node2"}})
    declaration = declare({**CPU, "infra": file}, ROLES, Path("/"))
    routes = [{"dst": "10.120.30.0/24", "dev": "tun0"}]
    found = findings(good_case(declaration, routes=routes))
    [said] = [each for each in found if each.subject == "subnet" and each.mark is Mark.BROKEN]
    assert said.next == f"change global.addressing in {file}, or free that of the part lab-2"


# What the parts ask each other


def test_servers_of_other_parts_are_the_gateway_s(infra: Infra) -> None:
    program = run("cpu", CLUSTER, infra=infra(POOL))
    assert published(program, "lab-2/far") == {
        "members-stt": ("tcp:192.168.1.12:8000", "tcp:10.120.30.1:8000")
    }
    assert published(program, "lab-2/far-2") == {
        "members-stt": ("tcp:192.168.1.12:8001", "tcp:10.120.30.99:8000")
    }
    assert not published(program, "lab/stt") and not published(program, "lab/gateway")
    assert program.outputs["gateway_servers"] == {
        "stt": "http://10.120.0.1:8000",
        "192.168.1.12:8000": "http://192.168.1.12:8000",
        "192.168.1.12:8001": "http://192.168.1.12:8001",
    }
    members = {"lab/stt": "node1", "lab/gateway": "node1"}
    members |= {"lab-2/far": "node2", "lab-2/far-2": "node2"}
    assert program.outputs["members"] == members
    assert program.outputs["stt_url"] == "http://10.120.0.2:8000/v1"
    again = run("cpu", cluster_after(program), program, infra=infra(POOL))
    assert not again.changes(program) and not again.drift


def test_a_server_on_another_member_is_tried_as_a_machine_of_the_stack(infra: Infra) -> None:
    servers = {"servers": ["http://192.168.1.20:8000"]}
    steps = run("cpu", CLUSTER, infra=infra(POOL), gateway=servers).steps
    tried = {
        name.rpartition("/")[2]: each.spec.get("published_by")
        for name, each in steps.items()
        if "/server-" in name
    }
    assert tried == {
        "server-192.168.1.12-8000": "lab-2/far",
        "server-192.168.1.12-8001": "lab-2/far-2",
        "server-192.168.1.20-8000": None,
    }


def test_only_the_member_that_asks_is_let_in(infra: Infra) -> None:
    program = run("cpu", CLUSTER, infra=infra(POOL))
    assert let_in(program, "lab-2", "members-stt") == [
        ("192.168.1.11/32", "10.120.30.1/32", "8000"),
        ("192.168.1.11/32", "10.120.30.99/32", "8000"),
    ]
    allowed = program.outputs["allowed_traffic"]
    assert "lab/gateway (192.168.1.11) -> lab-2/far: tcp 8000" in allowed
    assert "lab -> lab-2/far-2 (192.168.1.12): tcp 8001" in allowed
    assert not [each for each in allowed if each.startswith("anywhere")]
    out = program.commands["lab/acl"].data["egress"]
    assert [each["description"] for each in out if "192.168" in each["destination"]] == [
        "services of lab-2/far",
        "services of lab-2/far-2",
    ]
    # With a device of one's own it is anybody, as ever.
    lan = {
        "type": "proxy",
        "nat": "true",
        "listen": "tcp:192.168.1.11:9",
        "connect": "tcp:10.120.0.1:9",
    }
    machines = {**POOL, "stt": {"roles": STT, "devices": {"lan": lan}}}
    program = run("cpu", CLUSTER, infra=infra(machines))
    assert "anywhere -> lab/stt: tcp 9" in program.outputs["allowed_traffic"]


def test_servers_elsewhere_stay_beside_them(infra: Infra) -> None:
    urls = ["http://192.168.1.20:8000", "http://192.168.1.12:8000"]
    program = run("cpu", CLUSTER, infra=infra(POOL), gateway={"servers": urls})
    assert set(program.outputs["gateway_servers"].values()) == {
        "http://10.120.0.1:8000",
        "http://192.168.1.12:8000",
        "http://192.168.1.12:8001",
        "http://192.168.1.20:8000",
    }
    # As the operator had it published before.
    lan = {"type": "proxy", "listen": "tcp:192.168.1.12:9000", "connect": "tcp:127.0.0.1:8000"}
    machines = {**POOL, "far": {"roles": STT, "member": "node2", "devices": {"lan": lan}}}
    [said] = refused(infra(machines), gateway={"servers": ["http://192.168.1.12:9000"]})
    assert said.startswith('stt:gateway.servers: has "http://192.168.1.12:9000", where the device')
    assert 'the same server as "http://192.168.1.12:8000". Remove one of them.' in said


def test_open_webui_asks_a_gateway_of_another_part(infra: Infra) -> None:
    machines = {**POOL, "webui": {"roles": WEBUI, "member": "node3"}}
    program = run("cpu", CLUSTER, infra=infra(machines))
    variables = program.commands["lab-3/webui/open_webui/service"].spec["variables"]
    assert variables["AUDIO_STT_OPENAI_API_BASE_URL"] == "http://192.168.1.11:8000/v1"
    assert published(program, "lab/gateway") == {
        "members-gateway": ("tcp:192.168.1.11:8000", "tcp:10.120.0.2:8000")
    }
    assert let_in(program, "lab", "members-gateway") == [
        ("192.168.1.13/32", "10.120.0.2/32", "8000")
    ]
    # It has the stack's key, and is verified once the gateway is.
    key = program.commands["lab-3/webui/open_webui/secrets"].spec["secrets"][0]["variables"]
    assert key["AUDIO_STT_OPENAI_API_KEY"] == key_of(program)
    needs = program.commands["lab-3/webui/open_webui/verify"].dependencies
    assert "lab/gateway/stt_gateway/verify" in needs
    # What the operator names counts.
    named = "http://192.168.1.40:8000/v1"
    found = links(infra(machines), webui={"stt_url": named})
    assert {asking for asking, _, _ in found} == {"lab/gateway"}


def test_what_other_parts_transcribe_is_verified_as_ever(infra: Infra) -> None:
    """The words that have to come back, and another model, are theirs."""
    machines = {"gateway": GATE, "far": far("node2"), "webui": {"roles": WEBUI}}
    program = run("cpu", CLUSTER, infra=infra(machines))
    verify = program.steps["lab/gateway/stt_gateway/verify"]
    assert verify.spec["words"] == "one two three"
    through = program.steps["lab/webui/open_webui/verify"]
    assert through.spec["environment"]["STT_WORDS"] == "one two three"
    model = run("cpu", CLUSTER, infra=infra(machines), model="tiny.en")
    for name in ("lab/gateway/stt_gateway/verify", "lab/webui/open_webui/verify"):
        assert "lab-2/far/stt_server/verify" in program.commands[name].dependencies
        assert name in model.changes(program)


def test_a_member_that_does_not_answer_stops_no_verification_of_the_others(infra: Infra) -> None:
    machines = {**POOL, "webui": {"roles": WEBUI, "member": "node3"}}
    file = infra(machines)
    first = run("cpu", CLUSTER, infra=file)
    live = cluster_after(first)
    members = {**live.members, "node2": replace(live.members["node2"], status="Offline")}
    there = {place: found for place, found in live.machines.items() if place[0] != "lab-2"}
    live = replace(live, members=members, machines=there)
    changed = run("cpu", live, first, infra=file, check={"words": "one two"}).changes(first)
    assert {"lab/gateway/stt_gateway/verify", "lab-3/webui/open_webui/verify"} <= set(changed)


def key_of(program: Program) -> str:
    """The stack's key, as the steps name it."""
    secrets = program.commands["lab-2/far/stt_server/secrets"].spec["secrets"]
    return str(secrets[0]["content"])


@pytest.mark.parametrize(
    ("machines", "expected"),
    [
        # The only server is elsewhere.
        (
            {"webui": {"roles": WEBUI}, "a": {"roles": STT, "member": "node2"}},
            [("lab/webui", "lab-2/a", "http://192.168.1.12:8000/v1")],
        ),
        # Of several without a gateway it is its own part's.
        (
            {
                "webui": {"roles": WEBUI},
                "a": {"roles": STT, "member": "node2"},
                "b": {"roles": STT},
            },
            [],
        ),
        (
            {
                "webui": {"roles": WEBUI, "member": "node2"},
                "a": {"roles": STT, "member": "node2"},
                "b": {"roles": STT},
            },
            [],
        ),
        # Or else the first of the domain's own member.
        (
            {
                "a": {"roles": STT, "member": "node2"},
                "b": {"roles": STT},
                "webui": {"roles": WEBUI, "member": "node3"},
            },
            [("lab-3/webui", "lab/b", "http://192.168.1.11:8000/v1")],
        ),
        # Beside a gateway nothing has to be published for it.
        (
            {
                "webui": {"roles": WEBUI},
                "gateway": {"roles": GATEWAY},
                "a": {"roles": STT, "member": "node2"},
            },
            [("lab/gateway", "lab-2/a", "http://192.168.1.12:8000")],
        ),
        # No one asks.
        ({"a": {"roles": STT}, "b": {"roles": OLLAMA, "member": "node2"}}, []),
    ],
)
def test_who_asks_whom(infra: Infra, machines: Any, expected: Any) -> None:
    assert links(infra(machines)) == expected


@pytest.mark.parametrize(
    ("role", "setting", "instead"),
    [
        (STT, "stt_url", "Open WebUI has no STT service without it"),
        (OLLAMA, "ollama_url", "Open WebUI has no Ollama without it"),
    ],
)
def test_a_setting_that_keeps_a_link_from_being_made_has_an_effect(
    infra: Infra, role: Any, setting: str, instead: str
) -> None:
    here = {"webui": {"roles": WEBUI}}
    machines = {**here, "far": {"roles": role, "member": "node2"}}
    log = "\n".join(run("cpu", CLUSTER, infra=infra(machines), webui={setting: ""}).log)
    assert f"stt:webui.{setting}: has no effect" not in log
    log = "\n".join(run("cpu", CLUSTER, infra=infra(here), webui={setting: ""}).log)
    assert f"stt:webui.{setting}: has no effect: {instead}." in log


def test_a_setting_that_names_a_machine_of_another_part(infra: Infra) -> None:
    """By its name it is not found, and by its address on the bridge it is not reached."""
    machines = {"gateway": GATE, "webui": {"roles": WEBUI}, "far": far("node2")}
    program = run("cpu", CLUSTER, infra=infra(machines), webui={"stt_url": "http://far:8000/v1"})
    [said] = [each for each in program.log if "cannot look it up" in each]
    assert said.endswith(
        "Leave the setting out: webui gets the address at which its member publishes it."
    )
    why = (
        "is on the bridge of lab-2/far, which is on another member than {}, and does not reach "
        "from one member to another. {}: {} gets the address at which its member publishes it."
    )
    url = "http://10.120.30.1:8000"
    assert refused(infra(machines), webui={"stt_url": f"{url}/v1"}) == [
        f'stt:webui.stt_url: "{url}/v1" {why.format("webui", "Leave the setting out", "webui")}'
    ]
    [said, _] = refused(infra(machines), gateway={"servers": [url]})  # it is asked already, too
    assert said == (
        f'stt:gateway.servers: "{url}" {why.format("gateway", "Remove it there", "gateway")}'
    )


def test_what_is_switched_off_is_not_published(infra: Infra) -> None:
    machines = {**POOL, "webui": {"roles": WEBUI, "member": "node3"}}
    assert links(infra(machines), enabled=False) == []
    servers = ["http://192.168.1.20:8000"]
    found = links(infra(machines), enabled=False, gateway={"servers": servers})
    assert found == [("lab-3/webui", "lab/gateway", "http://192.168.1.11:8000/v1")]


def test_ollama_of_another_part_is_added(infra: Infra) -> None:
    machines = {
        "webui": {"roles": WEBUI},
        "near": {"roles": OLLAMA},
        "far": {"roles": OLLAMA, "member": "node2"},
    }
    program = run("cpu", CLUSTER, infra=infra(machines))
    variables = program.commands["lab/webui/open_webui/service"].spec["variables"]
    assert variables["OLLAMA_BASE_URLS"] == "http://10.120.0.2:11434;http://192.168.1.12:11434"
    assert let_in(program, "lab-2", "members-ollama") == [
        ("192.168.1.11/32", "10.120.30.1/32", "11434")
    ]
    # What the operator names counts, "" too.
    for url in ("", "http://192.168.1.40:11434"):
        assert links(infra(machines), webui={"ollama_url": url}) == []


def test_another_count_changes_no_other_machine_s_port(infra: Infra) -> None:
    def ports(count: int) -> dict[str, str]:
        machines = {**POOL, "far": {**POOL["far"], "count": count}, "last": far("node2")}
        return {to: url for _, to, url in links(infra(machines))}

    before = ports(2)
    assert before == {
        "lab-2/far": "http://192.168.1.12:8000",
        "lab-2/last": "http://192.168.1.12:8001",
        "lab-2/far-2": "http://192.168.1.12:8002",
    }
    assert ports(3) == {**before, "lab-2/far-3": "http://192.168.1.12:8003"}


def test_a_port_that_the_operator_publishes_is_not_taken(infra: Infra) -> None:
    """On the same member, in whatever domain."""
    device = {"type": "proxy", "listen": "tcp:0.0.0.0:8000", "connect": "tcp:127.0.0.1:1"}
    two = other({"a": {"devices": {"lan": device}}}, member="node2")
    found = links(infra(POOL, more={"two": two}))
    assert [url for _, _, url in found] == ["http://192.168.1.12:8001", "http://192.168.1.12:8002"]
    last = links(infra(POOL), port=65535)
    assert [url for _, _, url in last] == ["http://192.168.1.12:65535", "http://192.168.1.12:65534"]
    two["member"] = "node3"
    found = links(infra(POOL, more={"two": two}))
    assert [url for _, _, url in found] == ["http://192.168.1.12:8000", "http://192.168.1.12:8001"]
    # Where a domain comes to be is known once the host was read.
    two["member"] = "@gpu"
    live = replace(CLUSTER, members={name: CLUSTER.members[name] for name in ("node1", "node2")})
    with pytest.raises(Exception, match=r"takes port 8000 of the host") as caught:
        run("cpu", live, infra=infra(POOL, more={"two": two}))
    assert "global.members" in str(caught.value)


def test_servers_behind_one_gateway_have_one_model_on_all_members(infra: Infra) -> None:
    card = {"card": {"devices": {"gpu": {"type": "gpu", "gputype": "physical"}}}}
    machines = {**POOL, "stt": {"roles": STT, "gpu": True, "profiles": ["default", "card"]}}
    [said] = refused(infra(machines, {"profiles": card}), model="", quantization="auto")
    assert said.startswith("stt:model: is empty, and the servers behind the gateway on gateway")
    assert "(on lab/stt)" in said and "(on lab-2/far)" in said


def test_count_without_a_gateway_in_any_part(infra: Infra) -> None:
    machines = {name: each for name, each in POOL.items() if name != "gateway"}
    [said] = refused(infra(machines))
    assert "far.count: makes 2 STT servers, and no machine of the domain has the role" in said


def test_services_of_several_parts_that_nothing_makes_one(infra: Infra) -> None:
    machines = {"a": {"roles": STT}, "b": {"roles": STT, "member": "node2"}}
    log = run("cpu", CLUSTER, infra=infra(machines)).log
    assert "lab: a and b are 2 STT services with an address each." in "\n".join(log)


@pytest.mark.parametrize(
    ("machines", "keys", "settings", "why"),
    [
        (
            {},
            {},
            {"host": "127.0.0.1"},
            [
                *(
                    f'stt:host: "127.0.0.1" is reached only inside lab-2/{name}, and lab/gateway '
                    "asks from another member. Use 0.0.0.0."
                    for name in ("far", "far-2")
                ),
                'stt:host: "127.0.0.1" is reached only inside stt, and the gateway asks from',
            ],
        ),
        (
            {"webui": {"roles": WEBUI, "member": "node3"}},
            {},
            {"gateway": {"tls": "internal"}},
            [
                'stt:gateway.tls: is "internal", and Open WebUI on lab-3/webui asks from another '
                "member, where it does not trust the gateway's certificate.",
            ],
        ),
        (
            {},
            {"more": {"two": other({"gateway": {"roles": GATEWAY}, "stt": {"roles": STT}})}},
            {},
            [
                "infra.yml: domains.two.machines.gateway.roles: stt_gateway is on two/gateway and "
                "on lab/gateway, whose domain is on several members:",
            ],
        ),
        ({"stt": {"roles": STT, "devices": {"members-stt": {"type": "none"}}}}, {}, {}, []),
        (
            {"far": {**POOL["far"], "devices": {"members-stt": {"type": "none"}}}},
            {},
            {},
            [
                "infra.yml: domains.lab.machines.far.devices.members-stt: is the name of the "
                f"device that the program makes in {name} for other members (192.168.1.12:{port})."
                for name, port in (("far", 8000), ("far-2", 8001))
            ],
        ),
        (
            {},
            {"ai_access": "exclusive", "ai_access_default": "two", "more": {"two": other({})}},
            {},
            [
                "infra.yml: global.ai_access: is exclusive, and lab is on several members, whose",
                "infra.yml: global.ai_access: is exclusive, and no rule of policy lets a domain",
            ],
        ),
        (
            {
                "z": {
                    "member": "node2",
                    "devices": {
                        "all": {
                            "type": "proxy",
                            "listen": "tcp:192.168.1.12:1-65535",
                            "connect": "tcp:127.0.0.1:1-65535",
                        }
                    },
                }
            },
            {},
            {},
            [
                "infra.yml: domains.lab.machines.far: is asked from other members, and no port of "
                "node2 is left: the proxy devices of the topology have all.",
            ],
        ),
    ],
)
def test_links_that_cannot_be(
    infra: Infra, machines: Any, keys: Any, settings: Any, why: list[str]
) -> None:
    """What is said, and nothing else."""
    file = infra({**POOL, **machines}, **keys)
    if not why:
        assert links(file, **settings)
        return
    found = refused(file, **settings)
    assert [each[: len(start)] for each, start in zip(found, why, strict=True)] == why


def test_an_address_that_its_member_does_not_have(infra: Infra) -> None:
    """Where that is known: of the member that answers."""
    own = {"lo": ["127.0.0.1/8"], "eth0": ["192.168.1.21/24"]}
    live = replace(CLUSTER, addresses=own)
    with pytest.raises(Exception, match="nothing on the host was touched") as caught:
        run("cpu", live, infra=infra(POOL))
    assert (
        "global.members.node1: 192.168.1.11 is not an address of node1, and other members would "
        "ask there. It has 192.168.1.21; incus cluster list shows"
    ) in str(caught.value)
    assert run("cpu", live, infra=infra(POOL, members={**MEMBERS, "node1": "192.168.1.21"}))
    assert run("cpu", live, infra=infra({"a": {}})), "nobody asks there"


def test_the_preview_says_how_the_parts_reach_each_other(infra: Infra) -> None:
    def said(**keys: Any) -> str:
        machines = {"gateway": {"roles": GATEWAY}, "far": {"roles": STT, "member": "node2"}}
        program = run("cpu", CLUSTER, infra=infra(machines, **keys))
        [line] = [each for each in program.log if "several members" in each]
        assert "without encryption" not in "\n".join(program.log)
        return line

    way = (
        "lab is on several members: node1, node2 as lab-2. Its parts reach each other at the "
        "members' own addresses, not by OVN: lab/gateway asks lab-2/far at "
        "http://192.168.1.12:8000. This is not encrypted"
    )
    assert said(trusted_networks=["192.168.1.0/24"]) == (
        f"{way}, over 192.168.1.0/24, which global.trusted_networks names."
    )
    # Both ends have to be in one.
    for networks in ([], ["192.168.1.12/32"]):
        line = said(trusted_networks=networks)
        assert line.startswith(f"{way}: whoever is on the way can read recordings, chats and keys.")
    program = run("cpu", CLUSTER, infra=infra({"a": {}, "b": {"member": "node2"}}))
    assert "lab is on several members: node1, node2 as lab-2. No part asks another one." in (
        program.log
    )


def test_a_part_whose_member_does_not_answer_is_left_as_it_is(infra: Infra) -> None:
    file = infra(POOL)
    first = run("cpu", CLUSTER, infra=file)
    live = cluster_after(first)
    members = {**live.members, "node2": replace(live.members["node2"], status="Offline")}
    there = {place: found for place, found in live.machines.items() if place[0] != "lab-2"}
    again = run("cpu", replace(live, members=members, machines=there), first, infra=file)
    assert not again.changes(first) and not again.drift
    assert "lab-2 is left as it is: its machines are on node2" in "\n".join(again.log)
