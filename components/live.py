"""What is on the host now: one read, before anything is registered."""

from __future__ import annotations

import json
import re
import subprocess
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_interface
from typing import Any

from components.command import SSH, incus, interpreter
from components.facts import Fact, questions
from components.incus_object import MARK
from components.templates import render
from declaration.infra import BRIDGE_PREFIX
from declaration.problems import Problem, show
from declaration.settings import Connection
from declaration.topology import DomainPlan
from gpu.cards import NVIDIA_SMI_FIELDS, Card, parse_cards
from stack.declare import Declaration

_READS = {
    "resources": "/1.0/resources",
    "projects": "/1.0/projects?recursion=1",
    "networks": "/1.0/networks?recursion=1",
    "pools": "/1.0/storage-pools?recursion=1",
    "profiles": "/1.0/profiles?recursion=1&all-projects=true",
    "instances": "/1.0/instances?recursion=1&all-projects=true",
}
_VOLUMES = "/1.0/storage-pools/{pool}/volumes/custom?recursion=1&all-projects=true"

#: Seconds that the read may take in all, and of these each machine.
TIMEOUT, MACHINE_TIMEOUT = 120, 30


class HostError(Exception):
    """The host cannot be read; ``user_message`` says why and what to do."""

    def __init__(self, user_message: str) -> None:
        self.user_message = user_message
        super().__init__(user_message)


@dataclass(frozen=True)
class Live:
    """The host as it is."""

    cards: Sequence[Card]
    projects: Mapping[str, Mapping[str, str]]
    networks: Mapping[str, Mapping[str, str]]
    pools: Sequence[str]
    #: Network interfaces of the host that Incus does not manage.
    interfaces: Sequence[str] = ()
    #: Every object by kind, project and name.
    objects: Mapping[tuple[str, str, str], Mapping[str, Any]] = field(default_factory=dict)
    #: What each machine answered (see ``facts.questions``), by project and name.
    answers: Mapping[tuple[str, str], Sequence[str]] = field(default_factory=dict)
    #: What each machine answered to probes, in base64, by project and name.
    probed: Mapping[tuple[str, str], Sequence[str]] = field(default_factory=dict)

    def find(self, kind: str, name: str, project: str) -> Mapping[str, Any] | None:
        """An object, where there is one."""
        return self.objects.get((kind, project, name))


Facts = Mapping[tuple[str, str], Sequence[Fact]]
#: Shell commands whose answers are no facts to compare.
Probes = Mapping[tuple[str, str], Sequence[str]]


def read_script(connection: Connection, pool: str, facts: Facts, probes: Probes) -> str:
    """The script that prints what is needed as one JSON object: one round trip."""
    return render(
        "host/read.sh.j2",
        incus=incus(connection),
        reads=_READS,
        volumes=_VOLUMES.format(pool=pool),
        timeout=MACHINE_TIMEOUT,
        # Another machine's cards are of no use.
        nvidia_smi="" if connection.kind == "incus" else NVIDIA_SMI_FIELDS,
        machines=[
            {
                "project": project,
                "name": name,
                "script": questions(asked, probes.get((project, name), ())),
            }
            for (project, name), asked in facts.items()
        ],
    )


def read_live(connection: Connection, pool: str, facts: Facts, probes: Probes) -> Live:
    """Read the host.

    Raises:
        HostError: there is no ``incus``, no permission, or no answer.
    """
    try:
        done = subprocess.run(  # noqa: S603  # the operator's own host
            [*interpreter(connection), "sh -s"],
            input=read_script(connection, pool, facts, probes),
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise HostError(_explain(connection, f"no answer in {TIMEOUT} s")) from None
    except FileNotFoundError as error:
        raise HostError(_explain(connection, f"{error.filename} is not installed here")) from None
    if done.returncode:
        raise HostError(_explain(connection, done.stderr.strip()))
    return parse_live(json.loads(done.stdout), facts)


def parse_live(data: Mapping[str, Any], facts: Facts) -> Live:
    """The parts of Incus' answers that matter here; ``facts`` are those that were asked."""
    managed = [network for network in data["networks"] if network["managed"]]
    objects = {("project", item["name"], item["name"]): item for item in data["projects"]}
    objects |= {("network", "default", item["name"]): item for item in managed}
    for kind in ("profile", "instance", "volume"):
        objects |= {(kind, item["project"], item["name"]): item for item in data[f"{kind}s"]}
    answers: dict[tuple[str, str], list[str]] = {}
    probed: dict[tuple[str, str], list[str]] = {}
    for machine, text in data["machines"].items():
        *said, end = text.split(" ")[:-1] or [""]
        if end == "end":
            project, _, name = machine.partition("/")
            asked = len(facts.get((project, name), ()))
            answers[project, name], probed[project, name] = said[:asked], said[asked:]
    return Live(
        cards=parse_cards(data["resources"], b64decode(data["nvidia_smi"]).decode()),
        projects={project["name"]: project["config"] for project in data["projects"]},
        networks={network["name"]: network["config"] for network in managed},
        pools=[pool["name"] for pool in data["pools"]],
        interfaces=[item["name"] for item in data["networks"] if not item["managed"]],
        objects=objects,
        answers=answers,
        probed=probed,
    )


def _fingerprint(connection: Connection) -> str:
    """The fingerprint of the key that an SSH host shows, as ssh itself tells it."""
    try:
        done = subprocess.run(  # noqa: S603  # the operator's own host
            [*SSH, "-v", "--", connection.target, "true"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "and its fingerprint could not be read"
    keys = re.findall(r"Server host key: (\S+ \S+)", done.stderr)
    return f"its fingerprint is {keys[-1]}" if keys else "and its fingerprint could not be read"


def _explain(connection: Connection, said: str) -> str:
    """One sentence with the next step, from what the client or ssh said."""
    last = said.splitlines()[-1] if said else "it said nothing"
    where = f"stt:connection is {connection}"
    if "REMOTE HOST IDENTIFICATION HAS CHANGED" in said:
        return (
            f"{where}: the host shows another SSH key than the one that is known, "
            f"{_fingerprint(connection)}. If it has got a new one, compare the fingerprint on the "
            f"host (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), remove the old one "
            f"(ssh-keygen -R), then connect once by hand: ssh {connection.target}"
        )
    if "Host key verification failed" in said:
        return (
            f"{where}: the host's SSH key is not known, {_fingerprint(connection)}. Compare it "
            "with the host's own (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), then connect "
            f"once by hand and say yes: ssh {connection.target}"
        )
    if "Permission denied (" in said:
        return f"{where}: SSH does not let this user in. Try it by hand: ssh {connection.target}"
    if "permission" in said.lower():
        return (
            f"{where}: this user may not use Incus ({last}). Add the user to the group incus-admin "
            "(sudo usermod -aG incus-admin $USER) and log in again."
        )
    if "incus: not found" in said or "incus: command not found" in said:
        return f"{where}: there is no incus client. `make up` installs Incus on this machine."
    if "doesn't exist" in said and "remote" in said.lower():
        return f"{where}: there is no such remote. See `incus remote list` and `incus remote add`."
    if connection.kind == "ssh":
        return (
            f"{where}: the host cannot be reached ({last}). Try it by hand: "
            f"ssh {connection.target} incus list"
        )
    return (
        f"{where}: the Incus daemon does not answer ({last}). Is it running? `make up` starts it "
        "on this machine."
    )


def obstacles(declaration: Declaration, live: Live) -> list[Problem]:
    """What on the host stands in the way of the declaration."""
    settings, topology = declaration.settings, declaration.topology
    problems: list[Problem] = []
    if settings.pool not in live.pools:
        known = ", ".join(live.pools) or "none yet: `make up` makes one"
        problems.append(
            Problem(
                "stt:pool",
                f"{show(settings.pool)} is no storage pool of the host. There are: {known}.",
            )
        )
    for plan in topology.domains:
        problems += _taken(plan, live, settings.adopt)
    return problems


def _taken(plan: DomainPlan, live: Live, adopt: bool) -> list[Problem]:
    """Names and addresses of a domain that belong to somebody else."""
    problems: list[Problem] = []
    mark, value = next(iter(MARK.items()))
    for kind, name, existing in (
        ("project", plan.name, live.projects),
        ("network", plan.bridge, live.networks),
    ):
        if name in existing and existing[name].get(mark) != value and not adopt:
            problems.append(
                Problem(
                    f"domains.{plan.name}",
                    f"the host has a {kind} {name} that incus-stt did not make; it is left alone. "
                    f"Rename the domain, remove that {kind}, or set stt:adopt to true to take it "
                    "over: `make drift` shows what that changes.",
                )
            )
    if plan.bridge in live.interfaces:
        problems.append(
            Problem(
                f"domains.{plan.name}",
                f"the host has a network interface {plan.bridge} that Incus does not manage. "
                f"Rename the domain, or remove it on the host: ip link delete {plan.bridge}",
            )
        )
    for name, config in live.networks.items():
        address = config.get("ipv4.address", "none")
        if name == plan.bridge or address in ("none", "auto", ""):
            continue
        if name == BRIDGE_PREFIX + (plan.domain.formerly or plan.name):
            continue
        if ip_interface(address).network.overlaps(plan.subnet):
            ours = config.get(mark) == value
            former = f"formerly: {name.removeprefix(BRIDGE_PREFIX)}"
            renamed = f" If this domain got a new name, say so with {former}." if ours else ""
            problems.append(
                Problem(
                    f"domains.{plan.name}",
                    f"its subnet {plan.subnet} is taken by the network {name} ({address}). Give "
                    f"the domain another one with subnet:, or change global.addressing.{renamed}",
                )
            )
    return problems + _strangers(plan, live)


def _strangers(plan: DomainPlan, live: Live) -> list[Problem]:
    """Machines that are not declared any more and hold an address that is wanted."""
    known = {name for each in plan.machines for name in (each.name, each.machine.formerly)}
    problems: list[Problem] = []
    for (kind, project, name), found in live.objects.items():
        if kind != "instance" or project != plan.name or name in known:
            continue
        address = found.get("devices", {}).get("eth0", {}).get("ipv4.address")
        problems += [
            Problem(
                f"domains.{plan.name}.machines.{machine.name}",
                f"its address {address} is that of the machine {name}, which is declared no more. "
                f"If {machine.name} is its new name, say so with formerly: {name}. Else let one "
                f"`make up` remove {name} first, or give {machine.name} another ip:.",
            )
            for machine in plan.machines
            if str(machine.address) == address
        ]
    return problems
