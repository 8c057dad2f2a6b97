"""What is on the host now: Incus' objects, and what each machine's agent says."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.difference import Difference
from host.firewall import Firewall, parse_firewall

#: Where the agent is in a machine.
AGENT = "/opt/incus-stt/agent"
AGENT_WORDS = ("python3", "-IS", AGENT)
#: What is asked of Incus' API, by the name of the answer.
READS = {
    "resources": "/1.0/resources",
    "projects": "/1.0/projects?recursion=1",
    "acls": "/1.0/network-acls?recursion=1",
    "networks": "/1.0/networks?recursion=1",
    "pools": "/1.0/storage-pools?recursion=1",
    "profiles": "/1.0/profiles?recursion=1&all-projects=true",
    "instances": "/1.0/instances?recursion=1&all-projects=true",
}


@dataclass(frozen=True)
class AppliedStep:
    """A step as its machine knows it; ``stack`` is the id of the stack that applied it."""

    stack: str
    digest: str
    differences: Sequence[Difference]


@dataclass(frozen=True)
class MachineState:
    """What a machine's agent says: its steps, and answers of its services (``Service.reports``).

    ``salt`` is that of the digests of steps with secrets. ``cards``: what nvidia-smi says there.
    """

    steps: Mapping[str, AppliedStep]
    answers: Mapping[str, Any] = field(default_factory=dict)
    salt: str = ""
    cards: str = ""


@dataclass(frozen=True)
class Member:
    """A member of a cluster; ``resources`` are empty if it did not answer."""

    name: str
    status: str
    groups: Sequence[str] = ()
    resources: Mapping[str, Any] = field(default_factory=dict)

    @property
    def online(self) -> bool:
        """Whether machines run there."""
        return self.status == "Online"

    @property
    def condition(self) -> str:
        """Its status, within a sentence."""
        return self.status.lower()

    @property
    def way_back(self) -> str:
        """How it comes back."""
        if self.status == "Evacuated":
            return f"incus cluster restore {self.name} brings it back."
        return f"Start {self.name}; see incus cluster list."


@dataclass(frozen=True)
class Live:
    """The host as it is."""

    resources: Mapping[str, Any]
    nvidia_smi: str
    projects: Mapping[str, Mapping[str, str]]
    networks: Mapping[str, Mapping[str, str]]
    #: The driver of each storage pool.
    pools: Mapping[str, str]
    #: Network interfaces of the host that Incus does not manage.
    interfaces: Sequence[str] = ()
    #: The host's own IPv4 addresses with their prefixes, by interface; empty if not known.
    addresses: Mapping[str, Sequence[str]] = field(default_factory=dict)
    #: Every object by type, project and name.
    objects: Mapping[tuple[str, str, str], Mapping[str, Any]] = field(default_factory=dict)
    #: What each machine's agent answered, by project and name; a machine without one is missing.
    machines: Mapping[tuple[str, str], MachineState] = field(default_factory=dict)
    #: What runs on the cards (``gpu.processes``).
    gpu_processes: str = ""
    #: The numbers of users and groups that containers may have: /etc/subuid and /etc/subgid.
    user_ids: str = ""
    #: How many instances of inotify the host's kernel allows (``host.inotify``); empty: not known.
    inotify_instances: str = ""
    #: What its firewall has for the bridges of this program; None if that was not read.
    firewall: Firewall | None = None
    #: Whether the host's firewall sees what goes from one machine of a bridge to another; None
    #: if that is not known.
    filters_bridges: bool | None = None
    #: The members of the cluster by name; none if there is no cluster. And the one that answers.
    members: Mapping[str, Member] = field(default_factory=dict)
    answers: str = ""

    def is_of(self, member: str) -> bool:
        """Whether a member is the host that was read; an empty one: there is no cluster."""
        return member in ("", self.answers)

    def find(self, type_: str, name: str, project: str, member: str = "") -> Any:
        """An object, if there is one; of a cluster's volumes, that of a member."""
        if member:
            name = _on(name, member)
        return self.objects.get((type_, project, name))


def parse_live(texts: Mapping[str, str]) -> Live:
    """The parts of the answers that matter here."""
    found = {name: json.loads(texts[name]) for name in READS}
    found["volumes"] = json.loads(texts.get("volumes") or "[]")
    members = _members(texts)
    managed = [network for network in found["networks"] if network["managed"]]
    objects = {("project", item["name"], item["name"]): item for item in found["projects"]}
    objects |= {("network", "default", item["name"]): item for item in managed}
    objects |= {("acl", "default", item["name"]): item for item in found["acls"]}
    for kind in ("profile", "instance", "volume"):
        objects |= {(kind, item["project"], item["name"]): item for item in found[f"{kind}s"]}
    for item in found["volumes"] if members else ():
        objects["volume", item["project"], _on(item["name"], item["location"])] = item
    for item in found["instances"] if members else ():
        item["member"] = item["location"]  # as a desired state has it
    states: dict[tuple[str, str], MachineState] = {}
    for name, text in texts.items():
        kind, _, place = name.partition(" ")
        if kind == "machine" and (state := machine_state(text)) is not None:
            project, _, machine = place.partition(" ")
            states[project, machine] = state
    return Live(
        resources=found["resources"],
        nvidia_smi=texts.get("nvidia_smi", ""),
        projects={project["name"]: project["config"] for project in found["projects"]},
        networks={network["name"]: network["config"] for network in managed},
        pools={pool["name"]: pool["driver"] for pool in found["pools"]},
        interfaces=[item["name"] for item in found["networks"] if not item["managed"]],
        addresses=_addresses(texts.get("addresses", "")),
        objects=objects,
        machines=states,
        gpu_processes=texts.get("gpu_processes", ""),
        user_ids=texts.get("user_ids", ""),
        inotify_instances=texts.get("inotify", "").strip(),
        firewall=parse_firewall(texts["firewall"]) if "firewall" in texts else None,
        # Without the module br_netfilter there is no such file.
        filters_bridges=texts["bridge_filter"].strip() == "1" if "bridge_filter" in texts else None,
        members=members,
        answers=_json(texts["server"])["environment"]["server_name"] if members else "",
    )


def _json(text: str | None) -> Any:
    """An answer; an empty object if there is none."""
    try:
        return json.loads(text or "{}")
    except ValueError:
        return {}


def _members(texts: Mapping[str, str]) -> dict[str, Member]:
    """The members of the cluster, in the order of their names."""
    names = {each["server_name"]: each for each in _json(texts.get("members")) or []}
    return {
        name: Member(
            name,
            names[name]["status"],
            tuple(names[name]["groups"]),
            _json(texts.get(f"hardware {name}")),
        )
        for name in sorted(names)
    }


def _on(name: str, member: str) -> str:
    """How ``Live.objects`` names the volume of a member; no name has a slash."""
    return f"{name}/{member}"


def _addresses(said: str) -> dict[str, list[str]]:
    """The addresses of each interface, from lines such as ``2: eth0    inet 10.0.0.5/24 …``."""
    found: dict[str, list[str]] = {}
    for words in map(str.split, said.splitlines()):
        if len(words) > 3 and words[2] == "inet":
            found.setdefault(words[1].partition("@")[0], []).append(words[3])
    return found


def machine_state(text: str) -> MachineState | None:
    """What an agent said; None if it did not answer."""
    try:
        said = json.loads(text)
        steps = {
            name: AppliedStep(
                step["stack"],
                step["digest"],
                [Difference(**each) for each in step["differences"]],
            )
            for name, step in said["steps"].items()
        }
        more = (said.get("salt") or "", str(said.get("cards") or ""))
        return MachineState(steps, said.get("answers") or {}, *more)
    except (ValueError, KeyError, TypeError):
        return None
