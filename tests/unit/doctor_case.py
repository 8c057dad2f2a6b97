"""A host on which all is well, for tests of `make doctor`: each changes what it is about."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from declaration.topology import MachinePlan
from doctor.__main__ import findings
from doctor.case import Answer, Case, Facts
from doctor.finding import Finding
from host.firewall import TABLE
from host.objects import MARK, OWNER
from stack.declare import Declaration
from tests.unit.values import declared

#: This computer's clock while the facts were read, and when everything was applied.
NOW, APPLIED = 1_800_000_000.0, "2027-01-14T08:00:00+00:00"
SERVER = {"environment": {"server_version": "6.0.4", "server_clustered": False}}
NFT: dict[str, Any] = {"nftables": []}
DF = "Filesystem 1024-blocks Used Available Capacity Mounted on\n"
HOST: dict[str, Any] = {
    "client": "6.0.4",
    "server": SERVER,
    "resources": {"gpu": {"cards": []}},
    "pools": [{"name": "default", "driver": "dir", "status": "Created"}],
    "pool": {"space": {"used": 0, "total": 200 << 30}, "inodes": {"used": 1, "total": 1000}},
    "system": 'PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\nID=debian\nVERSION_ID="13"',
    "kernel": "6.12.1",
    "user": "0",
    "groups": "root",
    "cards": "",
    "nvidia_smi": None,
    "toolkit": None,
    "ip_forward": "1",
    "inotify": "128",
    "bridge_filter": "1",
    "routes": [{"dst": "default", "dev": "eth0"}, {"dst": "192.168.1.0/24", "dev": "eth0"}],
    "nft": NFT,
    "conntrack": "conntrack v1.4.7",
    "iptables": None,
    "synchronized": "yes",
    "disks": f"{DF}/dev/sda1 500000000 1 {100 << 20} 80% /\n",
    "inodes": "Filesystem Inodes IUsed IFree IUse% Mounted on\n/dev/sda1 1000 10 990 1% /\n",
    "clock": str(int(NOW)),
    "members": [],
}


def _address(address: str) -> dict[str, Any]:
    return {"family": "inet", "local": address, "prefixlen": 24}


def answer(value: Any) -> Answer:
    """What a program said: a text, what it says as JSON, or none where it is not there."""
    if value is None:
        return Answer()
    if isinstance(value, Answer):
        return value
    return Answer(0, value if isinstance(value, str) else json.dumps(value))


def instance(plan: MachinePlan, stack: str = "cpu") -> dict[str, Any]:
    """A machine that runs, as Incus has it."""
    config = {**MARK, OWNER: f"stt/{stack}/id"}
    return {"project": plan.domain, "name": plan.name, "status": "Running", "config": config}


def machine(case: Case, plan: MachinePlan) -> dict[str, Any]:
    """What the agent of a machine says where all is well."""
    services = {
        step: {
            "unit": f"{each.unit}.service",
            "state": "active",
            "port": each.port,
            "seconds": 60,
            "restarts": 0,
            "last_error": "",
        }
        for step, each in case.services(plan).items()
    }
    names = {
        name: [str(each.address)] for each in case.machines for name in case.names_of(plan, each)
    }
    verified = {step.part for step in case.steps(plan) if step.part.endswith("/verify")}
    return {
        "services": services,
        "healthy": dict.fromkeys(services, True),
        "unfinished": [],
        "programs": {
            step: {"directory": each.directory, "description": each.description}
            for step, each in case.programs(plan).items()
        },
        "applied": dict.fromkeys(services, APPLIED),
        "verified": {step: {"at": APPLIED} for step in verified},
        "keys": {
            step: {"asked": True, "engine": "x", "with": 200, "without": 401, "changed": []}
            for step in verified
            if step.startswith("stt_server/")
        },
        "names": names,
        "outside": {"name": "deb.example", "addresses": [], "reached": False},
        "disks": [{"path": "/", "size": 200 << 30, "free": 100 << 30, "inodes": 0.9}],
        "certificates": {},
        "updates": {"asked": NOW, "packages": []},
        "time": NOW,
    }


def good_case(
    declaration: Declaration | None = None, stack: str = "cpu", *, up: bool = True, **host: Any
) -> Case:
    """A stack on a good host, with some of the host's answers changed; ``up``: it was built."""
    case = Case(stack, declaration or declared(), Facts({}, {}, NOW, NOW + 1))
    facts = dict(HOST)
    if up:
        bridges = {domain.bridge: domain for domain in case.domains}
        facts["networks"] = [
            {
                "name": name,
                "managed": True,
                "config": {**MARK, "ipv4.address": f"{domain.gateway}/24"},
            }
            for name, domain in bridges.items()
        ]
        facts["addresses"] = [
            {"ifname": name, "addr_info": [_address(str(domain.gateway))]}
            for name, domain in bridges.items()
        ]
        tables = ("incus", *(f"{TABLE}{name}" for name in bridges))
        facts["tables"] = "\n".join(f"table inet {name}" for name in tables)
        facts["instances"] = [instance(plan, stack) for plan in case.machines]
    else:
        facts |= {"networks": [], "addresses": [], "instances": [], "tables": ""}
    answers = {name: answer(value) for name, value in {**facts, **host}.items()}
    machines = {plan.full_name: machine(case, plan) for plan in case.machines} if up else {}
    return replace(case, facts=Facts(answers, machines, NOW, NOW + 1))


def within(case: Case, name: str, *path: str, value: Any) -> Case:
    """The case with something else in what a machine said."""
    said: dict[str, Any] = copy.deepcopy(dict(case.facts.machines))
    place: Any = said
    for each in (name, *path[:-1]):
        place = place[each]
    place[path[-1]] = value
    return replace(case, facts=replace(case.facts, machines=said))


def saying(case: Case, name: str, said: Mapping[str, Any] | str) -> Case:
    """The case with another answer of a machine, or why there is none."""
    return replace(case, facts=replace(case.facts, machines={**case.facts.machines, name: said}))


def one(case: Case, subject: str) -> Finding:
    """The only finding of a subject that is not good, or the only one."""
    found = [each for each in findings(case) if each.subject == subject]
    bad = [each for each in found if each.next] or found
    assert len(bad) == 1, findings(case)
    return bad[0]
