"""Environments side by side on one host: a change goes through staging, then to production."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from shutil import which
from typing import Any

import pytest

from tests.e2e.project import (
    Project,
    ai_access_by_turns,
    changed,
    incus,
    left_of,
    light,
    machine,
    request,
    run,
    wait_until,
    way_out,
)
from tests.e2e.reachability import (
    SOME_PORT,
    Address,
    Matrix,
    Way,
    answers_everywhere,
    opened,
    opened_meanwhile,
    other_network,
)

DOMAIN, SUBNET, PORT = "stt-e2e-n", "10.213.25", 28400
LISTED = ["production", "staging"]


def stack(root: Path, environment: str) -> Project:
    """A stack of an environment; the topology is the same."""
    number = LISTED.index(environment)
    domain = DOMAIN if number == 0 else f"{DOMAIN}-{environment}"
    subnet = f"10.213.{25 + 32 * number}"
    written = DOMAIN, SUBNET
    made = Project(root / environment, domain, subnet, written=written, environments=LISTED)
    light(made)
    published = {
        "type": "proxy",
        "listen": f"tcp:127.0.0.1:{PORT}",
        "connect": "tcp:127.0.0.1:8000",
    }
    made.machines["gpu-server"]["devices"] = {"published": published}
    made.machines["other"] = machine(cache=False)
    if number == 0:  # as a machine from an earlier version, with the volume of another one
        disk = {"type": "disk", "pool": made.pool, "source": "models", "path": "/srv/models"}
        config = {"security.idmap.isolated": False}
        made.machines["other"] |= {"devices": {"models": disk}, "config": config}
    made.set(environment=environment)
    return made


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Project, Project]]:
    """Production and staging, up."""
    root = tmp_path_factory.mktemp("environments")
    stacks = stack(root, "production"), stack(root, "staging")
    try:
        for each in stacks:
            each.up()
        yield stacks
    finally:
        for each in stacks:
            each.pulumi("destroy")
    assert left_of(DOMAIN) == []


def commit(both: tuple[Project, Project], **settings: Any) -> None:
    """A change of both stacks' files."""
    for each in both:
        each.set(**settings)


def test_they_stand_side_by_side(both: tuple[Project, Project]) -> None:
    assert [each.outputs()["stt_url"] for each in both] == [
        "http://10.213.25.1:8000/v1",
        "http://10.213.57.1:8000/v1",
    ]
    for each, port in zip(both, (PORT, PORT + 100), strict=True):
        assert each.transcribe("hello_world").status == 200
        assert each.unchanged()
        assert request(f"http://127.0.0.1:{port}/").status == 200
        # Machines of another environment have no names here: this one is its own.
        name = "import socket; print(socket.gethostbyname('gpu-server.incus'))"
        assert each.inside("python3", "-c", name, machine="other") == f"{each.subnet}.1"
    production, staging = (each.outputs()["stt_api_key"] for each in both)
    assert production != staging


def test_a_change_is_verified_in_staging_and_then_made_in_production(
    both: tuple[Project, Project],
) -> None:
    production, staging = both
    commit(both, quantization="float32", model="another")
    staging.up()
    assert staging.health() | {"STT_COMPUTE_TYPE": "float32", "STT_MODEL": "another"} == (
        staging.health()
    )
    assert production.health()["STT_MODEL"] == "light"
    production.up()
    assert production.health() == staging.health()


@pytest.mark.seldom
def test_a_change_that_does_not_work_ends_in_staging(both: tuple[Project, Project]) -> None:
    commit(both, model="broken", port=8100)
    production, staging = both
    assert "this model does not load" in staging.fails()
    # Neighbours reach the service where it was, for that is where it is.
    assert opened(staging, (f"{staging.subnet}.1", 8000))
    for each in both:
        assert each.health()["STT_MODEL"] == "another"
        assert each.transcribe("hello_world").status == 200
    commit(both, model="another", port=None)
    staging.up()
    assert production.unchanged()


@pytest.mark.seldom
def test_nothing_crosses_a_border_but_what_policy_says(both: tuple[Project, Project]) -> None:
    """Every pair of machine, port and direction; what closes a way opens it once, too."""
    production, staging = both
    with answers_everywhere(both) as host_port:
        matrix = Matrix(("production", "staging"), both, host_port)
        assert matrix.passing() == matrix.expected()
        there, here = f"{staging.subnet}.0/24", f"{production.subnet}.1"
        for each in both:
            each.policy = [
                {"from": DOMAIN, "to": here, "ports": [8000], "description": "from staging"},
                {"from": there, "to": f"{DOMAIN}/gpu-server", "ports": [8000]},
            ]
            each.write()
            assert changed(each.up(), f"{each.domain}/") == ["acl", "acl/closed"]
            assert each.unchanged()
        policy: list[Way] = [
            (f"staging {name}", "production gpu-server", "tcp", 8000)
            for name in ("gpu-server", "other")
        ]
        assert matrix.passing() == matrix.expected(*policy)
        assert f"{DOMAIN} -> {here}: tcp 8000" in staging.outputs()["allowed_traffic"]
        # By hand, everything: it is named, and goes. Staging's own border is still there.
        for way in ("egress", "ingress"):
            incus("network", "acl", "rule", "add", f"net-{DOMAIN}", way, "action=allow")
        by_hand: list[Way] = [
            (source, to, protocol, port)
            for source in ("production gpu-server", "production other")
            for to, protocol, _, port in matrix.ends
            if to.startswith("production") or to.endswith(" host")
            if (to, port) != ("production other", 8000)
        ]
        assert matrix.passing() == matrix.expected(*policy, *by_hand)
        assert production.drift() == [
            f"acl/closed: {way}: {{action: allow, state: enabled}} -> (none)"
            for way in ("egress", "ingress")
        ]
        for each in both:
            each.policy = []
            each.write()
            each.up()
        assert matrix.passing() == matrix.expected()
        assert production.unchanged()
        # Who takes another machine's address is not heard.
        free, service = f"{production.subnet}.9", (f"{production.subnet}.1", 8000)
        production.inside("ip", "address", "add", f"{free}/24", "dev", "eth0", machine="other")
        assert opened(production, service, source=f"{production.subnet}.2")
        assert not opened(production, service, source=free)


@contextmanager
def counted(bridge: str) -> Iterator[Callable[[], int]]:
    """How many packets the host passes on from a bridge to elsewhere."""
    table = f"{bridge}-count"
    chain = "{ type filter hook forward priority filter + 10; }"
    run("nft", f"delete table inet {table}")  # of a run that was cut off
    for words in (
        f"add table inet {table}",
        f"add chain inet {table} forward {chain}",
        f"add rule inet {table} forward iifname {bridge} oifname != {bridge} counter",
    ):
        assert run("nft", words).returncode == 0

    def count() -> int:
        said = run("nft", "--json", "list", "table", "inet", table).stdout
        [rule] = [each["rule"] for each in json.loads(said)["nftables"] if "rule" in each]
        return int(rule["expr"][-1]["counter"]["packets"])

    try:
        yield count
    finally:
        assert run("nft", f"delete table inet {table}").returncode == 0


def test_nothing_leaves_but_while_something_is_installed(both: tuple[Project, Project]) -> None:
    """The distribution's packages and their names, and a connection by address."""
    production, _ = both
    bridge = f"net-{DOMAIN}"
    update = "apt-get -q -o APT::Update::Error-Mode=any -o Acquire::Retries=0 update"
    fetch = ["incus", "--project", DOMAIN, "exec", "other", "--", "timeout", "60", *update.split()]
    host = [".venv/bin/python", "-m", "host", "egress", "run", bridge]
    wait_until(lambda: way_out(bridge) == bridge)
    with counted(bridge) as packets:
        assert run(*fetch).returncode != 0
        name = "import socket; socket.getaddrinfo('example.org', 80)"
        within = ("incus", "--project", DOMAIN, "exec", "other", "--", "python3", "-c")
        assert run(*within, name).returncode != 0
        assert not opened(production, ("192.0.2.1", 443))
        assert production.transcribe("hello_world").status == 200
        assert packets() == 0
        done = run(*host, shlex.join(fetch), cwd=production.root)
        assert done.returncode == 0, done.stdout + done.stderr
        assert packets() > 0
        # It is closed again, also where who fetched was killed.
        wait_until(lambda: way_out(bridge) == bridge)
        command = [str(production.root / host[0]), *host[1:], "echo begun; exec sleep 600"]
        with subprocess.Popen(
            command, cwd=production.root, stdout=subprocess.PIPE, start_new_session=True
        ) as fetching:
            assert fetching.stdout
            assert fetching.stdout.readline() == b"begun\n"
            assert way_out(bridge) == f"{bridge},{bridge}-install"
            assert production.drift() == []  # nobody has changed it: somebody fetches
            os.killpg(fetching.pid, signal.SIGKILL)
        wait_until(lambda: way_out(bridge) == bridge)
    assert production.drift() == []


def test_an_edit_of_the_bridge_lets_nothing_else_through(both: tuple[Project, Project]) -> None:
    """Meanwhile Incus has no rules there. And what may pass gets through, also what begins then."""
    production, staging = both
    bridge, service = f"net-{DOMAIN}", (f"{production.subnet}.1", 8000)
    host = [".venv/bin/python", "-m", "host", "egress", "run", bridge, "true"]
    with (
        other_network("stt-e2e-out", "10.213.91", 9000) as outside,
        answers_everywhere(both) as port,
    ):
        production.policy = [{"from": DOMAIN, "to": outside[0], "ports": [outside[1]]}]
        production.write()
        production.up()
        within, ours = (service[0], SOME_PORT), (f"{production.subnet}.254", port)
        closed = [within, ours, (f"{staging.subnet}.1", 8000), (f"{staging.subnet}.254", port)]
        with opened_meanwhile(production, service, outside, *closed, seconds=8, patience=5) as (
            passed,
            missed,
        ):
            for _ in range(3):
                done = run(*host, cwd=production.root)
                assert done.returncode == 0, done.stderr
                wait_until(lambda: way_out(bridge) == bridge)
        assert passed == [service, outside]
        assert missed == closed
        production.policy = []
        production.write()
        production.up()
    assert production.unchanged()
    assert [each for each in run("nft", "list", "tables").stdout.split() if bridge in each] == [
        f"incus-stt-dns.{bridge}"
    ]


#: Asks DNS servers for a name, thrice over UDP at most, once over TCP; prints what answered.
ASK = """import json, socket, struct, sys
name, *servers = sys.argv[1:]
labels = b"".join(bytes([len(each)]) + each.encode() for each in name.split("."))
question = struct.pack("!6H", 7, 256, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, 1, 1)
found = []
for server in servers:
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        tcp = kind is socket.SOCK_STREAM
        end = socket.socket(socket.AF_INET, kind)
        end.settimeout(3 if tcp else 1)
        for _ in range(1 if tcp else 3):
            try:
                end.connect((server, 53))
                end.sendall((struct.pack("!H", len(question)) if tcp else b"") + question)
                if end.recv(512):
                    found.append(f"{server} {'tcp' if tcp else 'udp'}")
                    break
            except OSError:
                pass
print(json.dumps(found))
"""


def answering(domain: str, *servers: str) -> list[str]:
    """Which DNS servers answer the machine ``other`` of a domain, and over what."""
    name = "gpu-server.incus"
    said = incus("exec", "other", "--", "python3", "-c", ASK, name, *servers, project=domain)
    return [str(each) for each in json.loads(said)]


def test_no_machine_asks_another_bridge_s_dns_server(both: tuple[Project, Project]) -> None:
    """Nor any other one of the host's, but the one that ``policy:`` names."""
    production, staging = both
    own, other = (f"{each.subnet}.254" for each in both)
    table = f"incus-stt-dns.net-{DOMAIN}"
    assert answering(DOMAIN, own, other) == [f"{own} udp", f"{own} tcp"]
    assert answering(staging.domain, own, other) == [f"{other} udp", f"{other} tcp"]
    # What it is that keeps them from it; who takes it away is named.
    assert run("nft", f"delete table inet {table}").returncode == 0
    assert answering(DOMAIN, own, other) == [
        f"{o} {p}" for o in (own, other) for p in ("udp", "tcp")
    ]
    assert production.drift() == ["firewall: rule of the host's firewall: not there -> there"]
    assert changed(production.up(), f"{DOMAIN}/") == ["firewall"]
    assert answering(DOMAIN, own, other) == [f"{own} udp", f"{own} tcp"]
    # A rule in it that somebody has added by hand.
    added = f"insert rule inet {table} input ip daddr {other} accept"
    assert run("nft", added).returncode == 0
    assert answering(DOMAIN, other) == [f"{other} udp", f"{other} tcp"]
    [line] = production.drift()
    assert line.startswith("firewall: ") and f"ip daddr {other} accept" in line
    # A server of the host that somebody has named.
    production.policy = [{"from": DOMAIN, "to": other, "ports": [53], "protocol": "udp"}]
    production.write()
    production.up()
    assert answering(DOMAIN, own, other) == [f"{own} udp", f"{own} tcp", f"{other} udp"]
    production.policy = []
    production.write()
    production.up()
    assert answering(DOMAIN, own, other) == [f"{own} udp", f"{own} tcp"]
    assert production.unchanged() and staging.unchanged()


HOME, WORK = f"{DOMAIN}h", f"{DOMAIN}w"
EXCLUSIVE = f"net-{DOMAIN}-exclusive-ai"


def let_in() -> list[str]:
    """The addresses from which the bridge lets in to the AI services."""
    acl = json.loads(incus("query", f"/1.0/network-acls/{EXCLUSIVE}"))
    return [rule.get("source", "all") for rule in acl["ingress"]]


#: Sends half a request, and the rest once it is told to.
OPEN = """import socket, sys
end = socket.create_connection((sys.argv[1], int(sys.argv[2])))
end.sendall(b"GET / HTTP/1.1\\r\\n")
print("open", flush=True)
input()
end.settimeout(1)
end.sendall(b"Host: x\\r\\nConnection: close\\r\\n\\r\\n")
end.recv(1)
print("answered")
"""


@contextmanager
def connected(domain: str, address: Address) -> Iterator[Callable[[], str]]:
    """A connection from a domain that stays open; called, it tells whether it still is."""
    words = ["incus", "--project", domain, "exec", "other", "--", "python3", "-c", OPEN]
    with subprocess.Popen(
        [*words, *map(str, address)],
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "open\n"

        def rest() -> str:
            said, failure = process.communicate("\n", timeout=60)
            return said.strip() or failure.splitlines()[-1]

        yield rest


@pytest.mark.seldom
def test_one_domain_at_a_time_reaches_the_services(both: tuple[Project, Project]) -> None:
    """A change that is killed in the middle, one by its command, and one by the stack's file."""
    production, _ = both
    ai_access_by_turns(production, {HOME: "10.213.26", WORK: "10.213.27"})
    production.policy = [
        {"from": HOME, "to": f"{DOMAIN}/gpu-server", "ports": [8000]},
        {"from": WORK, "to": DOMAIN, "ports": [8000]},
    ]
    production.write()
    production.up()
    server = f"{SUBNET}.1", 8000

    def reaches(name: str) -> bool:
        # A packet that was lost comes again after a second.
        return bool(opened(production, server, domain=name, seconds=3))

    def reaching() -> list[str]:
        with ThreadPoolExecutor(2) as pool:
            found = zip((HOME, WORK), pool.map(reaches, (HOME, WORK)), strict=True)
            return [name for name, there in found if there]

    def loaded() -> Any:
        url, key = production.outputs()["stt_url"], production.outputs()["stt_api_key"]
        return request(url.replace("/v1", "/api/ps"), key).json["models"]

    def heard() -> bool:
        """It may be that what the killed command has started unloads it meanwhile."""
        assert production.transcribe("hello_world").status == 200
        return bool(loaded() == [production.settings["model"]])

    assert reaching() == [HOME]
    assert heard()
    words = ["make", "-s", "ai-access", f"DOMAIN={WORK}", "STACK=e2e"]
    with subprocess.Popen(
        words, cwd=production.root, env=production.variables(), start_new_session=True
    ) as switching:
        wait_until(lambda: let_in() == [])
        os.killpg(switching.pid, signal.SIGKILL)
    assert reaching() == []
    wait_until(heard)  # the host reaches it always
    done = production.make("ai-access", f"DOMAIN={WORK}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"  {HOME}: {HOME}/other to {server[0]}:8000 silent\n" in done.stdout
    assert f"  {WORK}: {WORK}/other to {server[0]}:8000 connected\n" in done.stdout
    assert reaching() == [WORK]
    assert loaded() == []
    incus("network", "acl", "rule", "add", EXCLUSIVE, "ingress", "action=allow")
    assert production.drift() == [
        "acl/ai: ingress: {action: allow, state: enabled} -> (none)",
    ]
    production.set(aiAccess=HOME)
    with connected(WORK, server) as answer:
        said = changed(production.up())
        # Incus lets through what is open; without conntrack on the host nobody cuts it.
        assert answer() == ("TimeoutError: timed out" if which("conntrack") else "answered")
    assert said == ["ai_access/hand-over", f"{DOMAIN}/acl/ai", f"{DOMAIN}/acl/ai-opened"]
    assert reaching() == [HOME]


def users(project: Project, name: str) -> tuple[int, int]:
    """The first user of a machine on the host, and how many it has."""
    _, first, count = project.inside("cat", "/proc/1/uid_map", machine=name).split()
    return int(first), int(count)


def test_each_machine_has_users_of_its_own(both: tuple[Project, Project]) -> None:
    """Also machines of the same name, and an older one; two of them have a volume together."""
    production, _ = both
    assert users(production, "other")[1] > 65536
    assert shared(production)
    del production.machines["other"]["config"]
    production.write()
    assert f"{DOMAIN}/other restarts: it gets users of its own on the host" in production.up()
    found = [users(each, name) for each in both for name in ("gpu-server", "other")]
    assert {count for _, count in found} == {65536}
    firsts = sorted(first for first, _ in found)
    assert all(two - one >= 65536 for one, two in itertools.pairwise(firsts)), found
    assert shared(production)


def shared(project: Project) -> bool:
    """Whether two machines see each other's files on a volume as the same users'."""
    owners = []
    for name in ("gpu-server", "other"):
        file = f"/srv/models/of-{name}"
        project.inside("install", "-o", "901", "-m", "600", "/dev/null", file, machine=name)
        listed = ("sh", "-c", "stat -c %u /srv/models/of-* && echo >>/srv/models/of-gpu-server")
        owners += project.inside(*listed, machine=name).split()
    return set(owners) == {"901"}


def test_one_goes_and_the_other_stays(both: tuple[Project, Project]) -> None:
    production, staging = both
    staging.destroy()
    assert [path for path in left_of(DOMAIN) if "staging" in path or "net1-" in path] == []
    assert production.unchanged()
    assert production.transcribe("hello_world").status == 200
