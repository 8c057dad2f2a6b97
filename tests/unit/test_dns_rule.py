"""The rule of the host's firewall: what it says, how it is set, when it is drift, who is told."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components.command import Host
from components.firewall import is_within_reach, warnings
from components.members import Placement
from components.state import State
from declaration.connection import Connection, parse_connection
from declaration.internet import INTERNET
from host import dns_rule
from host.client import Client, HostError
from host.dns_rule import apply_rules, remove_rules, rules
from host.firewall import (
    CAN,
    NO_KERNEL,
    NO_NFT,
    NO_ROOT,
    READ,
    REMOTE,
    RULE,
    Firewall,
    drift,
    parse_firewall,
)
from host.objects import OWNER
from host.read import Live
from host.reading import read_script
from tests.unit.cluster import CLUSTER
from tests.unit.program import EMPTY_HOST, Program, first_run, host_after, run
from tests.unit.three_domains import topology
from tests.unit.values import declared

LOCAL = Connection("local")
DESIRED: dict[str, Any] = {"bridge": "net-a", "server": "10.120.0.254", "allowed": []}
PLAIN = """add table inet incus-stt-dns.net-a
delete table inet incus-stt-dns.net-a
table inet incus-stt-dns.net-a {
\tchain input {
\t\ttype filter hook input priority -10; policy accept;
\t\tiifname != "net-a" accept
\t\tmeta l4proto != { tcp, udp } accept
\t\tth dport != 53 accept
\t\tip daddr 10.120.0.254 accept
\t\tdrop
\t}
}
"""
FILE, UNIT = "/etc/incus-stt/dns-net-a.nft", "/etc/systemd/system/incus-stt-dns-net-a.service"


def test_all_but_the_bridge_s_own_server_is_dropped() -> None:
    assert rules(DESIRED) == PLAIN


def test_what_is_allowed_stands_before_the_drop() -> None:
    ends = {"source": "10.120.0.1/32,10.120.0.2/32", "destination": "192.168.1.5/32"}
    range_ = {"source": "10.120.0.0/24", "destination": "1.0.0.0-9.255.255.255"}
    said = rules({**DESIRED, "allowed": [{**ends, "protocol": "udp", "description": "x"}, range_]})
    assert said.splitlines()[-5:] == [
        "\t\tip saddr { 10.120.0.1/32, 10.120.0.2/32 } ip daddr { 192.168.1.5/32 } "
        "meta l4proto udp accept",
        "\t\tip saddr { 10.120.0.0/24 } ip daddr { 1.0.0.0-9.255.255.255 } accept",
        "\t\tdrop",
        "\t}",
        "}",
    ]


NASTY = 'x"; flush ruleset; #'


@pytest.mark.parametrize(
    "wrong",
    [
        {"bridge": NASTY},
        {"bridge": "../net-a"},
        {"bridge": "a$(reboot)"},
        {"bridge": "net-a\n"},
        {"server": NASTY},
        {"allowed": [{"source": NASTY, "destination": "192.168.1.5/32"}]},
        {"allowed": [{"source": "10.0.0.0/8", "destination": f"1.1.1.1-{NASTY}"}]},
        {"allowed": [{"source": "10.0.0.0/8", "destination": "1.1.1.1/32", "protocol": NASTY}]},
    ],
)
def test_nothing_but_names_addresses_and_protocols_gets_to_nft(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"is not a |4 octets|Only decimal"):
        rules({**DESIRED, **wrong})


def test_no_text_of_the_topology_gets_to_nft() -> None:
    """Not even quoted: a description is for the reviewer only."""
    allowed = {"source": "10.0.0.0/8", "destination": "1.1.1.1/32", "description": NASTY}
    assert "flush" not in rules({**DESIRED, "description": NASTY, "allowed": [allowed]})


# Setting and removing it, by programs that only write down what they are asked for.

_ROOT = """shift
case $1 in
    nft) exec "$@" ;;
    tee) cat >"$SAID.$(basename "$2")" ;;
esac
echo "$*" >>"$SAID"
"""
_NFT = """case $* in
    "list tables") echo "$TABLES" ;;
    -n\\ -s\\ list*unreadable | -n\\ -s\\ list*gone) exit 1 ;;
    -n\\ -s\\ list*) printf 'table inet %s {\\n\\tchain input {\\n\\t}\\n}\\n' "$6" ;;
    *) cat >"$SAID.rules"; echo "nft $*" >>"$SAID" ;;
esac
"""


class Stage:
    """A host of stand-ins: an ordinary user, sudo, nft, and systemd where it is wanted."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.said_file = tmp_path / "said"
        self.bin = tmp_path / "bin"
        self.bin.mkdir()
        for name, body in {"sudo": _ROOT, "nft": _NFT, "id": "echo 1000"}.items():
            self.program(name, body)
        for name in ("cat", "basename", "sed", "sha256sum", "sh"):
            found = subprocess.run(
                ["/bin/sh", "-c", f"command -v {name}"], capture_output=True, text=True, check=True
            )
            (self.bin / name).symlink_to(found.stdout.strip())
        self.monkeypatch, self.systemd = monkeypatch, tmp_path / "systemd"
        monkeypatch.setenv("PATH", str(self.bin))
        monkeypatch.setenv("SAID", str(self.said_file))
        tables = ("inet incus", "inet incus-stt-dns.net-a", "inet incus-stt-dns.net-b", "ip nat")
        monkeypatch.setenv("TABLES", "\n".join(f"table {each}" for each in tables))
        # What the scripts look at of the machine that runs this test.
        for name in ("_SET", "_REMOVE"):
            script = getattr(dns_rule, name)
            script = script.replace("/run/systemd/system", str(self.systemd))
            script = script.replace("PATH=$PATH:/usr/sbin:/sbin\n", "")
            monkeypatch.setattr(dns_rule, name, script)

    def program(self, name: str, body: str) -> None:
        (self.bin / name).write_text(f"#!/bin/sh\n{body}\n")
        (self.bin / name).chmod(0o755)

    @property
    def said(self) -> list[str]:
        return self.said_file.read_text().splitlines() if self.said_file.exists() else []


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(tmp_path, monkeypatch)


def test_it_is_set_in_one_go_and_what_the_host_shows_is_noted(stage: Stage) -> None:
    assert apply_rules(LOCAL, DESIRED) == {"done": "set", "set": {RULE: "chain input {\n}"}}
    assert stage.said == ["nft -f -"]


def test_where_systemd_starts_the_host_a_unit_sets_it_again(stage: Stage) -> None:
    stage.systemd.mkdir()
    apply_rules(LOCAL, DESIRED)
    assert stage.said == [
        "nft -f -",
        "mkdir -p /etc/incus-stt",
        f"tee {FILE}",
        f"tee {UNIT}",
        "systemctl daemon-reload",
        "systemctl --quiet enable --now incus-stt-dns-net-a.service",
    ]
    written = Path(f"{stage.said_file}.dns-net-a.nft"), Path(f"{stage.said_file}.{Path(UNIT).name}")
    assert written[0].read_text() == PLAIN
    unit = written[1].read_text()
    assert f"ExecStart=nft -f {FILE}\n" in unit and "Before=incus.service\n" in unit
    assert "After=nftables.service\n" in unit


def test_who_may_run_only_nft_with_sudo_has_it_until_the_next_boot(stage: Stage) -> None:
    stage.systemd.mkdir()
    stage.program("sudo", 'shift; [ "$1" = nft ] || exit 1; exec "$@"')
    done = apply_rules(LOCAL, DESIRED)
    assert (done["done"], list(done["set"])) == ("set", [RULE])
    assert "until the host's next boot" in done["why"] and "run up again" in done["why"]
    assert stage.said == ["nft -f -"]


@pytest.mark.parametrize(("lacks", "why"), [("nft", NO_NFT), ("root", NO_ROOT)])
def test_where_the_host_does_not_let_it_be_set_it_says_so(
    stage: Stage, lacks: str, why: tuple[str, str]
) -> None:
    if lacks == "nft":
        (stage.bin / "nft").unlink()
    else:
        stage.program("sudo", "echo 'sudo: a password is required' >&2; exit 1")
    done = apply_rules(LOCAL, DESIRED)
    assert (done["done"], done["set"]) == ("not set", {})
    assert why[0] in done["why"] and why[1] in done["why"]
    stage.monkeypatch.setattr(Client, "get", lambda *_: None)
    left = remove_rules(LOCAL, "net-a", "us")
    assert left["done"] == "left" and "nft delete table inet incus-stt-dns.net-a" in left["why"]
    assert stage.said == []


def test_what_nft_refuses_is_an_error_with_its_words(stage: Stage) -> None:
    stage.program("nft", '[ "$2" = tables ] || { echo "Error: no such hook" >&2; exit 1; }')
    with pytest.raises(HostError, match="not changed: Error: no such hook"):
        apply_rules(LOCAL, DESIRED)


def test_it_goes_with_its_unit(stage: Stage, tmp_path: Path) -> None:
    stage.monkeypatch.setattr(Client, "get", lambda *_: None)
    assert remove_rules(LOCAL, "net-a", "us") == {"done": "deleted"}
    assert stage.said == ["nft -f -"]
    tables = [f"table inet {name}.net-a\n" for name in ("incus-stt-dns", "incus-stt")]
    rules = "".join(f"add {table}delete {table}" for table in tables)
    assert Path(f"{stage.said_file}.rules").read_text() == rules
    there = tmp_path / "units"
    there.mkdir()
    (there / Path(UNIT).name).touch()
    stage.monkeypatch.setattr(dns_rule, "UNITS", str(there))
    remove_rules(LOCAL, "net-a", "us")
    assert stage.said[1:] == [
        "systemctl --quiet disable --now incus-stt-dns-net-a.service",
        f"rm -f {there}/{Path(UNIT).name} {FILE}",
        "systemctl daemon-reload",
        "rmdir /etc/incus-stt",
        "nft -f -",
    ]


def test_that_of_a_bridge_with_another_owner_stays(stage: Stage) -> None:
    stage.monkeypatch.setattr(Client, "get", lambda *_: {"config": {OWNER: "stt/other/id"}})
    left = remove_rules(LOCAL, "net-a", "stt/ours/id")
    assert left["done"] == "left" and "stt/other/id has taken the bridge over" in left["why"]
    assert stage.said == []


# The read, and drift.


def test_the_tables_of_several_bridges_are_read(stage: Stage) -> None:
    said = subprocess.run(["/bin/sh", "-c", READ], capture_output=True, text=True, check=True)
    found = parse_firewall(said.stdout)
    assert found and sorted(found.tables) == ["net-a", "net-b"]


@pytest.mark.parametrize(
    ("name", "again", "known"),
    [("unreadable", True, False), ("gone", False, True), ("unreadable", None, False)],
)
def test_a_table_that_cannot_be_read_is_not_one_that_is_gone(
    stage: Stage, name: str, again: bool | None, known: bool
) -> None:
    """Asked again, the tables have it, have it no more, or cannot be listed any more."""
    table = f"table inet incus-stt-dns.{name}"
    later = {True: f"echo '{table}'", False: ":", None: "exit 1"}[again]
    lists = f'"list tables") [ -e "$SAID" ] && {later} || {{ echo "{table}"; : >"$SAID"; }} ;;'
    stage.program("nft", _NFT.replace('"list tables") echo "$TABLES" ;;', lists))
    said = subprocess.run(["/bin/sh", "-c", READ], capture_output=True, text=True, check=False)
    assert (parse_firewall(said.stdout) is not None) is known


def test_a_rule_that_was_set_and_cannot_be_read_is_an_error(stage: Stage) -> None:
    stage.program("nft", _NFT.replace("list*unreadable |", "list*net-a |"))
    with pytest.raises(HostError, match="was set, and could not be read"):
        apply_rules(LOCAL, DESIRED)


def test_a_read_without_its_end_tells_nothing() -> None:
    assert parse_firewall(SAID.removesuffix("read\n")) is None
    assert parse_firewall("") is None


SAID = f"""0123abcd  {FILE}
4567cdef  {UNIT}
89  /etc/incus-stt/dns-net-ab.nft
table inet incus-stt-dns.net-a {{
\tchain input {{
\t\tdrop
\t}}
}}
table inet incus-stt-dns.net-ab {{
}}
read
"""
NOTED = {RULE: "chain input {\ndrop\n}", FILE: "0123abcd", UNIT: "4567cdef"}


def test_what_is_read_is_told_by_bridge() -> None:
    found = parse_firewall(SAID)
    assert found and found.of("net-a") == NOTED and not found.why_not
    assert found.of("net-ab") == {RULE: "", "/etc/incus-stt/dns-net-ab.nft": "89"}
    assert parse_firewall("why nft\nread\n") == Firewall(NO_NFT)
    assert parse_firewall("why kernel\nread\n") == Firewall(NO_KERNEL)
    assert parse_firewall(f"why root\n0123abcd  {FILE}\nread\n") == Firewall(
        NO_ROOT, files={FILE: "0123abcd"}
    )


def test_only_the_host_s_own_shell_is_asked() -> None:
    assert "incus-stt-dns" in read_script(LOCAL, "default")
    assert "incus-stt-dns" not in read_script(parse_connection("incus:lab"), "default")
    for script in (CAN, READ):
        assert subprocess.run(["/bin/sh", "-n", "-c", script], check=False).returncode == 0


@pytest.mark.parametrize(
    ("now", "lines"),
    [
        (SAID, []),
        ("read\n", [f"{name}: not there -> there" for name in (FILE, UNIT, RULE)]),
        (SAID.replace("\t\tdrop\n", ""), [f"{RULE} line: (no such line) -> drop"]),
        (SAID.replace("4567cdef", "0"), [f"{UNIT}: changed -> as it was set"]),
        ("why root\nread\n", []),
    ],
    ids=["as it was set", "all gone", "without the drop", "another unit", "no root any more"],
)
def test_drift(now: str, lines: list[str]) -> None:
    found = parse_firewall(now)
    assert found and [str(each) for each in drift("net-a", NOTED, found)] == lines


def test_what_could_not_be_set_is_drift_once_it_can() -> None:
    assert [str(each) for each in drift("net-a", {}, Firewall())] == [f"{RULE}: not there -> there"]
    assert drift("net-a", {}, Firewall(NO_ROOT)) == []


def test_a_rule_that_is_gone_is_set_again_and_nothing_else_runs() -> None:
    first = first_run("cpu")
    live = host_after(first)
    assert run("cpu", live, first).done == {}
    found = run("cpu", replace(live, firewall=Firewall()), first)
    assert found.drift == {"ai-tools/firewall": [f"{RULE}: not there -> there"]}
    assert found.done == {"ai-tools/firewall": "update"}
    assert run("cpu", replace(live, firewall=None), first).done == {}, "an unread host has no drift"


# The plan.


def data(program: Program, domain: str) -> Any:
    return program.commands[f"{domain}/firewall"].data


def test_each_bridge_has_one_before_the_machines_start() -> None:
    program = first_run("gpu")
    command = program.commands["ai-tools/firewall"]
    assert data(program, "ai-tools") == {
        "description": "incus-stt: of the host's addresses, machines on net-ai-tools reach port 53 "
        "(DNS) of 10.120.0.254 only, and what is allowed here",
        "bridge": "net-ai-tools",
        "server": "10.120.0.254",
        "allowed": [],
    }
    create, delete = (str(command.inputs[key]) for key in ("create", "delete"))
    assert create.endswith("host --connection local firewall set")
    assert "firewall remove net-ai-tools --owner stt/gpu/" in delete
    assert "ai-tools/firewall" in program.commands["ai-tools/network"].dependencies


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    ("rule", "allowed"),
    [
        ({"to": "192.168.1.5", "ports": [53], "protocol": "udp"}, ("192.168.1.5/32", "udp")),
        ({"to": "192.168.1.5", "ports": [80, 53]}, ("192.168.1.5/32", "tcp")),
        ({"to": "192.168.0.0/16", "ports": [53]}, ("192.168.0.0/16", "tcp")),
        ({"to": "192.168.1.5", "ports": [80]}, None),
        ({"to": "work", "ports": [53]}, None),
        ({"to": "work/desk", "ports": [53]}, None),
    ],
)
def test_a_server_that_policy_names_is_allowed(
    tmp_path: Path, rule: dict[str, Any], allowed: tuple[str, str] | None
) -> None:
    """The machines of a domain are no address of the host: its bridge's server stays closed."""
    policy = {"from": "home", "description": "names", **rule}
    file = topology(tmp_path, policy, access="open", default="")
    program = run("cpu", infra=file)
    found = [(e["destination"], e.get("protocol", "")) for e in data(program, "home")["allowed"]]
    assert found == ([allowed] if allowed else [])
    assert data(program, "work")["allowed"] == []


def test_an_open_domain_asks_the_internet_and_no_other_bridge(tmp_path: Path) -> None:
    cafe = {"trust_level": "untrusted", "egress": "open", "machines": {"guest": {}}}
    file = topology(tmp_path, access="open", default="", cafe=cafe)
    program = run("cpu", infra=file)
    [allowed] = data(program, "cafe")["allowed"]
    assert allowed["destination"] == ",".join(INTERNET)


# Where it does not hold.


def told(live: Live | None, connection: str = "local", **domains: str) -> list[str]:
    declaration = declared(connection=connection)
    host = Host(parse_connection(connection), live, State({}), placement=Placement(domains))
    return warnings(declaration, host)


def test_where_it_does_not_hold_the_preview_says_so_and_why() -> None:
    assert told(EMPTY_HOST) == told(None) == []
    for why in (NO_NFT, NO_ROOT):
        [said] = told(replace(EMPTY_HOST, firewall=Firewall(why)))
        assert said.startswith("ai-tools: machines can ask the DNS servers of the host's other")
        assert all(part in said for part in why)
    assert REMOTE[0] in told(None, "incus:lab")[0]
    [said] = told(CLUSTER, **{"ai-tools": "node2"})
    assert "on node2 of the cluster, and the rule is set on node1 only" in said
    assert told(CLUSTER, **{"ai-tools": "node1"}) == []
    log = run("cpu", replace(EMPTY_HOST, firewall=Firewall(NO_ROOT))).log
    assert [each for each in log if "can ask the DNS servers" in each]


def test_nothing_is_registered_where_the_host_cannot_be_reached() -> None:
    assert "ai-tools/firewall" not in run("cpu", connection="incus:lab").commands
    host = Host(LOCAL, CLUSTER, State({}), placement=Placement({"a": "node1", "b": "node2"}))
    assert (is_within_reach(host, "a"), is_within_reach(host, "b")) == (True, False)
    known = State({"b/firewall": {"triggers": ["local"]}})
    unread = Host(LOCAL, None, known, placement=Placement({"a": "node1", "b": "node2"}))
    assert (is_within_reach(unread, "a"), is_within_reach(unread, "b")) == (False, True)


def test_a_rule_that_could_not_be_read_is_told() -> None:
    unread = replace(EMPTY_HOST, firewall=None)
    [line] = told(unread)
    assert line.startswith(f"ai-tools: the {RULE} could not be read, so its drift was not checked.")
    assert not [line for line in told(unread, "incus:lab") if "could not be read" in line]
