"""What `make doctor` says of facts, one line for each; the host, Incus and the network."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from declaration.source_files import ROOT
from doctor.__main__ import findings, main, told
from doctor.case import HUNG, Answer, Case
from doctor.finding import Mark, broken, doubtful, good, worst
from doctor.gather import parse
from doctor.screen import lines
from host.objects import MARK
from roles import ROLES
from stack.declare import declare
from tests.unit.doctor_case import DF, NOW, SERVER, good_case, instance, one
from tests.unit.values import CPU, DEFAULTS, declared

GIB = 1 << 20  # in the kilobytes of df
SMI = "00000000:01:00.0, NVIDIA GeForce RTX 3060, 12288, 8.6, {}"
INET6 = {"family": "inet6", "local": "fe80::1", "prefixlen": 64}
ON_BUS = "0x10de 0000:01:00.0"


def test_all_is_well() -> None:
    found = findings(good_case())
    assert [each for each in found if each.mark is not Mark.GOOD] == []
    subjects = {each.subject for each in found}
    assert subjects > {"host", "access", "clock", "disk", "card", "Incus", "cluster", "storage"}
    assert subjects > {"network", "subnet", "forwarding", "gpu-server", "webui", "webui disk"}
    parts = ("speaches", "ollama", "DNS", "disk", "versions", "key", "verification")
    assert subjects > {f"gpu-server {part}" for part in parts}
    assert all(each.next == "" for each in found)


def test_before_the_first_up_everything_is_named_and_nothing_is_broken() -> None:
    asked = ("client", "server", "pools", "networks", "instances")
    missing: dict[str, Any] = dict.fromkeys(asked)
    found = findings(good_case(up=False, **missing))
    assert worst(found) is Mark.DOUBTFUL
    assert one(good_case(up=False, **missing), "Incus").next == "make up STACK=cpu installs it"
    found = findings(good_case(up=False, pools=[]))
    bad = {each.subject: each.next for each in found if each.mark is not Mark.GOOD}
    subjects = ("storage", "network", "gpu-server", "webui")
    assert bad == dict.fromkeys(subjects, "make up STACK=cpu makes it")


HOST_LINES: list[tuple[dict[str, Any], str, Mark, str]] = [
    ({"system": "ID=fedora\nPRETTY_NAME=Fedora"}, "host", Mark.GOOD, "Fedora, kernel 6.12.1"),
    ({"disks": f"{DF}/dev/a 9 1 {GIB // 2} 99% /\n"}, "disk", Mark.BROKEN, "0.5 of 0.0 GiB free"),
    ({"disks": f"{DF}/dev/a 9 1 {GIB * 5} 9% /\n"}, "disk", Mark.GOOD, "5.0 of"),
    ({"disks": f"{DF}/dev/a 9 1 {GIB * 2} 9% /\n"}, "disk", Mark.DOUBTFUL, "may need 3 GiB"),
    ({"inodes": f"{DF}/dev/a 1000 1000 0 100% /\n"}, "disk", Mark.BROKEN, "no inodes are left"),
    ({"clock": str(int(NOW) - 30)}, "clock", Mark.DOUBTFUL, "29 s away"),
    ({"clock": str(int(NOW) + 90)}, "clock", Mark.BROKEN, "88 s away"),
    ({"clock": "?"}, "clock", Mark.DOUBTFUL, "does not tell the time"),
    ({"synchronized": "no"}, "clock", Mark.DOUBTFUL, "not synchronized"),
    ({"synchronized": None}, "clock", Mark.GOOD, "nothing tells whether"),
    ({"user": "1000", "groups": "me incus-admin"}, "access", Mark.GOOD, "user 1000 uses Incus"),
    (
        {"user": "1000", "server": Answer(1, "Error: You don't have the needed permissions")},
        "access",
        Mark.BROKEN,
        "usermod -aG incus-admin",
    ),
    (
        {
            "user": "1000",
            "groups": "incus-admin",
            "server": Answer(1, "Error: permission denied"),
        },
        "access",
        Mark.BROKEN,
        "newgrp incus-admin",
    ),
    ({"user": "1000", "client": None, "server": None}, "access", Mark.DOUBTFUL, "is not root"),
    ({"server": Answer(1, "x\nError: refused")}, "Incus", Mark.BROKEN, "answer: Error: refused"),
    ({"server": Answer(HUNG)}, "Incus", Mark.BROKEN, "does not answer: no answer in time"),
    ({"client": None, "server": None}, "Incus", Mark.DOUBTFUL, "not installed"),
    ({"pools": [{"name": "fast", "driver": "zfs"}]}, "storage", Mark.BROKEN, "There are: fast"),
    (
        {"pools": [{"name": "default", "driver": "zfs", "status": "Unavailable"}]},
        "storage",
        Mark.BROKEN,
        "pool default: Unavailable",
    ),
    (
        {"pool": {"space": {"used": 9 << 30, "total": 9 << 30}}},
        "storage",
        Mark.BROKEN,
        "0.0 of 9.0 GiB free on pool default (dir)",
    ),
    (
        {"pool": {"space": {"total": 99 << 30}, "inodes": {"used": 10, "total": 10}}},
        "storage",
        Mark.BROKEN,
        "no inodes",
    ),
    ({"pool": {}}, "storage", Mark.GOOD, "its size is not known"),
    ({"networks": []}, "network", Mark.DOUBTFUL, "no bridge net-ai-tools yet"),
    (
        {"networks": [{"name": "net-ai-tools", "managed": False}]},
        "network",
        Mark.BROKEN,
        "ip link delete net-ai-tools",
    ),
    (
        {"networks": [{"name": "net-ai-tools", "managed": True, "config": {}}]},
        "network",
        Mark.BROKEN,
        "incus-stt did not make",
    ),
    (
        {"networks": [{"name": "net-ai-tools", "managed": True, "config": {**MARK}}]},
        "network",
        Mark.BROKEN,
        "has no address in Incus, and 10.120.0.254/24 is declared",
    ),
    ({"addresses": []}, "network", Mark.BROKEN, "net-ai-tools is gone -> restart Incus"),
    (
        {"addresses": [{"ifname": "net-ai-tools", "addr_info": [INET6]}]},
        "network",
        Mark.BROKEN,
        "has no address, and not 10.120.0.254/24 -> on the host: ip address add 10.120.0.254/24",
    ),
    (
        {"routes": [{"dst": "10.120.0.0/16", "dev": "tun0"}]},
        "subnet",
        Mark.BROKEN,
        "10.120.0.0/24 is taken: route 10.120.0.0/16 dev tun0",
    ),
    (
        {"routes": [{"dst": "10.120.0.0/24", "dev": "net-ai-tools"}]},
        "subnet",
        Mark.GOOD,
        "elsewhere",
    ),
    ({"inotify": "128"}, "containers", Mark.GOOD, "room for about 12"),
    (
        {"inotify": "19"},
        "containers",
        Mark.DOUBTFUL,
        "room for about 1 (fs.inotify.max_user_instances=19), with this stack 2 -> as root: echo",
    ),
    ({"bridge_filter": "0"}, "isolation", Mark.DOUBTFUL, "every port of the others"),
    ({"bridge_filter": ""}, "isolation", Mark.DOUBTFUL, "every port of the others"),
    (
        {"conntrack": None},
        "connections",
        Mark.DOUBTFUL,
        "was open stay open (conntrack not there) -> on the host: apt-get install conntrack",
    ),
    (
        {"nft": None},
        "connections",
        Mark.DOUBTFUL,
        "a bridge filters nothing for about a second while up opens or closes it (nft not there) "
        "-> on the host: apt-get install nftables",
    ),
    (
        {"user": "1000"},
        "connections",
        Mark.DOUBTFUL,
        "stay open and a bridge filters nothing for about a second while up opens or closes it "
        "(not root, and sudo wants a password)",
    ),
    ({"user": "1000", "sudo": ""}, "connections", Mark.GOOD, "a bridge that closes are cut"),
    (
        {"tables": "table inet incus-stt-dns.net-ai-tools"},
        "connections",
        Mark.DOUBTFUL,
        "opens or closes it (Incus uses iptables here) -> use nftables on the host",
    ),
    ({}, "DNS", Mark.GOOD, "machines ask no other bridge's DNS server"),
    (
        {"tables": "table inet incus\ntable inet incus-stt-dns.net-ai-tools2"},
        "DNS",
        Mark.DOUBTFUL,
        "the rule of the host's firewall is not there -> make up STACK=cpu sets it",
    ),
    (
        {"user": "1000", "tables": Answer(1, "sudo: a password is required")},
        "DNS",
        Mark.DOUBTFUL,
        "those of ai-tools can send data out within names, by another bridge's DNS server: the",
    ),
    ({"tables": Answer(1, "no such protocol")}, "DNS", Mark.DOUBTFUL, "nft does not work there"),
    ({"nft": None, "tables": None}, "DNS", Mark.DOUBTFUL, "apt-get install nftables"),
    ({"ip_forward": "0"}, "forwarding", Mark.BROKEN, "net.ipv4.ip_forward=0"),
    ({"ip_forward": "0", "networks": []}, "forwarding", Mark.GOOD, "its first bridge"),
    (
        {"nft": Answer(1, "Operation not permitted (you must be root)")},
        "forwarding",
        Mark.DOUBTFUL,
        "cannot be examined: Operation not permitted",
    ),
    ({"nft": None}, "forwarding", Mark.DOUBTFUL, "no nft, no iptables"),
    (
        {"nft": None, "iptables": "-P FORWARD DROP\n-N DOCKER-USER\n-A FORWARD -j DOCKER-USER"},
        "forwarding",
        Mark.BROKEN,
        "iptables -I DOCKER-USER -i net-ai-tools -j ACCEPT",
    ),
]


@pytest.mark.parametrize(("host", "subject", "mark", "said"), HOST_LINES)
def test_the_host(host: dict[str, Any], subject: str, mark: Mark, said: str) -> None:
    found = one(good_case(**host), subject)
    assert found.mark is mark and said in f"{found.found} -> {found.next}"


def test_the_dns_of_a_domain_on_another_member_of_a_cluster() -> None:
    named = {"environment": {**SERVER["environment"], "server_name": "one"}}
    members = [{"server_name": name, "status": "Online"} for name in ("one", "two")]
    case = good_case(server=named, members=members)
    elsewhere = [{**instance(plan), "location": "two"} for plan in case.machines]
    found = one(good_case(server=named, members=members, instances=elsewhere), "DNS")
    assert "its machines are on two of the cluster, and the rule is set on one only" in found.found
    assert "have these machines on one, or drop" in found.next


def test_a_kernel_that_does_not_tell_its_limit() -> None:
    unknown = good_case(inotify=Answer(1, "cat: no such file"))
    assert not [each for each in findings(unknown) if each.subject == "containers"]


@pytest.mark.parametrize(
    ("identity", "mark", "said"),
    [
        ("ID=debian\nVERSION_ID=13", Mark.GOOD, ""),
        ("ID=debian\nPRETTY_NAME=Debian sid", Mark.GOOD, "Debian sid"),
        ("ID=debian\nVERSION_ID=11", Mark.BROKEN, "too old, Debian 12 or later"),
        ('ID=ubuntu\nVERSION_ID="22.04"', Mark.BROKEN, "too old"),
        ('ID=ubuntu\nVERSION_ID="24.04"', Mark.GOOD, ""),
        ("ID=fedora", Mark.BROKEN, "neither Debian nor Ubuntu"),
    ],
)
def test_a_distribution_matters_where_incus_is_missing(
    identity: str, mark: Mark, said: str
) -> None:
    found = one(good_case(up=False, system=identity, client=None, server=None), "host")
    assert found.mark is mark and said in found.found
    started = one(good_case(up=False, system="ID=fedora", server=Answer(1)), "host")
    assert started.mark is Mark.DOUBTFUL and "start Incus" in started.next


@pytest.mark.parametrize(
    ("version", "mark"), [("5.21.1", Mark.BROKEN), ("6.0", Mark.GOOD), ("6.19", Mark.GOOD)]
)
def test_the_version_of_incus(version: str, mark: Mark) -> None:
    assert one(good_case(server={"environment": {"server_version": version}}), "Incus").mark is mark


def test_the_first_up_needs_more_room() -> None:
    five = f"{DF}/dev/a 9 1 {GIB * 5} 9% /\n"
    assert "may need 10 GiB" in one(good_case(up=False, disks=five), "disk").found


def test_without_iptables_nft_lets_the_bridge_out() -> None:
    chain = {"family": "ip", "table": "filter", "name": "F", "hook": "forward", "policy": "drop"}
    found = one(good_case(nft={"nftables": [{"chain": chain}]}), "forwarding")
    assert "policy DROP of ip filter F" in found.found
    assert "nft insert rule ip filter F iifname net-ai-tools accept;" in found.next


def _cluster(**states: str) -> dict[str, Any]:
    server = {"environment": {**SERVER["environment"], "server_clustered": True}}
    members = [{"server_name": name, "status": state} for name, state in states.items()]
    return {"server": server, "members": members}


@pytest.mark.parametrize(
    ("states", "mark", "said"),
    [
        ({"a": "Online", "b": "Online"}, Mark.GOOD, "2 members online: a, b"),
        ({"a": "Online", "b": "Evacuated"}, Mark.DOUBTFUL, "taken out: b (Evacuated)"),
        ({"a": "Online", "b": "Offline"}, Mark.BROKEN, "not there: b (Offline)"),
        ({}, Mark.DOUBTFUL, "its members cannot be listed"),
    ],
)
def test_a_cluster(states: dict[str, str], mark: Mark, said: str) -> None:
    found = one(good_case(**_cluster(**states)), "cluster")
    assert found.mark is mark and said in found.found


def test_what_is_on_another_member() -> None:
    case = _gpu()
    plans = [{**instance(plan, "gpu"), "location": "b"} for plan in case.machines]
    cluster = _cluster(a="Online", b="Offline")
    case = _gpu(instances=plans, cards="", **cluster)
    found = one(case, "card")
    assert found.mark is Mark.DOUBTFUL and "gpu-server is on b, whose cards" in found.found
    found = one(case, "gpu-server")
    assert found.mark is Mark.BROKEN and found.found == "its member b is offline"


def _gpu(ollama: bool = True, **host: Any) -> Case:
    roles = declare({**DEFAULTS, "engine": "faster-whisper"}, ROLES, ROOT)
    if not ollama:
        for plan in roles.topology.machines:
            if "ollama_server" in plan.machine.roles:
                plan.machine.roles.remove("ollama_server")
    return good_case(roles, "gpu", up=False, **host)


@pytest.mark.parametrize(
    ("host", "subject", "mark", "said"),
    [
        ({}, "card", Mark.BROKEN, "no NVIDIA card, and gpu-server is to own one"),
        ({"cards": ON_BUS}, "card", Mark.GOOD, "on the PCI bus"),
        ({"cards": ON_BUS}, "driver", Mark.BROKEN, "no nvidia-smi"),
        ({"cards": ON_BUS}, "container toolkit", Mark.BROKEN, "no nvidia-container-cli"),
        ({"cards": "0x1002 0000:01:00.0"}, "card", Mark.BROKEN, "no NVIDIA card"),
        ({"nvidia_smi": SMI.format("560.1")}, "card", Mark.GOOD, "GeForce RTX 3060"),
        ({"nvidia_smi": SMI.format("560.1")}, "driver", Mark.GOOD, "560.1"),
        ({"nvidia_smi": SMI.format("549.9")}, "driver", Mark.BROKEN, "too old for Ollama"),
        ({"nvidia_smi": Answer(18, "version mismatch")}, "driver", Mark.BROKEN, "mismatch"),
        ({"nvidia_smi": Answer(0, "No devices"), "cards": ON_BUS}, "driver", Mark.DOUBTFUL, "no"),
        (
            {"nvidia_smi": SMI.format("560.1"), "toolkit": Answer(1, "no libnvidia-ml")},
            "container toolkit",
            Mark.BROKEN,
            "it fails: no libnvidia-ml",
        ),
        (
            {"nvidia_smi": SMI.format("560.1"), "toolkit": "cli-version: 1.17.8\nmore"},
            "container toolkit",
            Mark.GOOD,
            "1.17.8",
        ),
    ],
)
def test_the_card(host: dict[str, Any], subject: str, mark: Mark, said: str) -> None:
    found = one(_gpu(**host), subject)
    assert found.mark is mark and said in found.found


def test_without_ollama_an_older_driver_will_do() -> None:
    assert one(_gpu(False, nvidia_smi=SMI.format("549.9")), "driver").mark is Mark.GOOD
    assert "525 or newer" in one(_gpu(False, nvidia_smi=SMI.format("470.1")), "driver").next


def test_what_is_gone_after_it_was_built_is_broken() -> None:
    case = replace(good_case(up=False), built=frozenset({"ai-tools/gpu-server"}))
    assert one(case, "gpu-server").mark is Mark.BROKEN
    assert one(case, "network").mark is Mark.BROKEN
    assert one(case, "webui").mark is Mark.DOUBTFUL


@pytest.mark.parametrize(
    ("connection", "subject", "mark", "said"),
    [
        ("ssh:me@box", "Incus", Mark.BROKEN, "that host has no incus client"),
        ("ssh:me@box", "storage", Mark.BROKEN, "ssh me@box incus storage create default dir"),
        ("incus:box", "host", Mark.DOUBTFUL, "Incus API is checked. Not checked: system"),
    ],
)
def test_another_host(connection: str, subject: str, mark: Mark, said: str) -> None:
    without: dict[str, Any] = {"client": None, "server": None}
    missing = without if subject == "Incus" else {"pools": []}
    case = good_case(declared(connection=connection), up=False, **missing)
    found = one(case, subject)
    assert found.mark is mark and said in f"{found.found} -> {found.next}"
    assert case.remote != any(each.subject == "forwarding" for each in findings(case))


def test_the_screen_and_its_data() -> None:
    found = [good("a", "fine"), doubtful("long name", "so so", "look"), broken("c", "off", "do")]
    assert lines(found, colour=False) == [
        "good      a          fine",
        "doubtful  long name  so so",
        "                     -> look",
        "broken    c          off",
        "                     -> do",
        "1 good, 1 doubtful, 1 broken",
    ]
    assert "\x1b[31mbroken  \x1b[0m  c" in lines(found, colour=True)[3]
    data = told("cpu", found)
    assert (data["stack"], data["state"]) == ("cpu", "broken")
    assert data["checks"][1] == {
        "subject": "long name",
        "state": "doubtful",
        "found": "so so",
        "next": "look",
    }
    assert [worst(found[:n]) for n in range(4)] == [
        *(Mark.GOOD, Mark.GOOD),
        *(Mark.DOUBTFUL, Mark.BROKEN),
    ]


def test_what_could_not_be_looked_at_is_said_as_data(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["doctor", "--stack", "no-such-stack", "--json"])
        assert main() == 2
    said = json.loads(capsys.readouterr().out)
    assert (said["state"], said["checks"]) == ("unknown", [])
    assert "there is no stack no-such-stack" in said["error"]


def test_answers_are_told_apart_by_their_token() -> None:
    said = "motd\nT0 server 0\nIf this is your first time …\n{\n}\nT0 nft 127\nsh: nft: not found\n"
    found = parse(said, "T0")
    assert found["server"].json == {} and found["nft"] == Answer(127, "sh: nft: not found")
    assert not found["nft"].there and found["nft"].json is None
    assert Answer(0, "no json").json is None and Answer(0, "[1").json is None
    assert json.loads("{}") == found["server"].json


def test_every_stack_of_a_cpu_can_be_judged() -> None:
    """With every engine: what a check reads of the plan is there."""
    for engine in ("speaches", "faster-whisper", "vosk", "owhisper"):
        settings = {**CPU, "engine": engine, "model": "", "quantization": "auto"}
        case = good_case(declare(settings, ROLES, ROOT))
        assert worst(findings(case)) is Mark.GOOD, engine
