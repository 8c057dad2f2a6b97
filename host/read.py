"""What is on the host now: Incus' objects and what each machine's agent says, in one round trip."""

from __future__ import annotations

import io
import json
import re
import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.difference import Difference
from declaration.connection import Connection
from host import inotify
from host.client import SSH, Client, HostError, incus_words, remote_variable, shell
from host.objects import MARK

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
_MEMBERS, _HARDWARE = "/1.0/cluster/members?recursion=1", "/1.0/resources?target="
VOLUMES = "/1.0/storage-pools/{pool}/volumes/custom?recursion=1&all-projects=true"
#: Seconds that the read may take in all, and of these each machine.
DEADLINE, MACHINE_DEADLINE = 120, 30
#: What nvidia-smi is asked, in this order.
NVIDIA_SMI_FIELDS = "pci.bus_id,name,memory.total,compute_cap,driver_version"

#: What runs on the cards: PCI address, process id, MiB and cgroup of each process.
_GPU_PROCESSES = """timeout 20 nvidia-smi --query-compute-apps=gpu_bus_id,pid,used_memory \
--format=csv,noheader,nounits | while IFS=', ' read -r card pid used; do
  echo "$card, $pid, $used, $(tail -n 1 "/proc/$pid/cgroup")"
done"""

#: Reads the members of a cluster, then which of them answers here, and the hardware of each.
_CLUSTER = """{{ {members} >"$work/members" && {server} >"$work/server" &&
  sed -n 's/.*"server_name": "\\(.*\\)".*/\\1/p' "$work/members" |
  xargs -P 4 -I '{{}}' sh -c {hardware} sh '{{}}' "$work/hardware {{}}"
}} </dev/null 2>/dev/null &"""

#: Reads everything at once; each answer has a file of its own. Machines are found by their mark.
#: Of many machines as many answer at a time as the host has room for: all at once take longer.
_SCRIPT = """set -eu
{first}
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
{{ {list} </dev/null | xargs -P "$(($(nproc) * 2))" -I '{{}}' sh -c {machine} sh '{{}}' "$work"
}} 2>/dev/null &
{commands}
wait
for failed in "$work"/*.failed; do
  [ ! -e "$failed" ] || {{ cat "$failed" >&2; exit 1; }}
done
tar -C "$work" -cf - .
"""


@dataclass(frozen=True)
class AppliedStep:
    """A step as its machine knows it; ``stack`` is the id of the stack that applied it."""

    stack: str
    digest: str
    differences: Sequence[Difference]


@dataclass(frozen=True)
class MachineState:
    """What a machine's agent says: its steps, and answers of its services (``Service.reports``).

    ``salt`` is that of the digests of steps with secrets.
    """

    steps: Mapping[str, AppliedStep]
    answers: Mapping[str, Any] = field(default_factory=dict)
    salt: str = ""


@dataclass(frozen=True)
class Member:
    """A member of a cluster; ``resources`` are empty where it did not answer."""

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
    pools: Sequence[str]
    #: Network interfaces of the host that Incus does not manage.
    interfaces: Sequence[str] = ()
    #: The host's own IPv4 addresses with their prefixes, by interface; empty where not known.
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
    #: Whether the host's firewall sees what goes from one machine of a bridge to another; None
    #: where that is not known.
    filters_bridges: bool | None = None
    #: The members of the cluster by name; none where there is no cluster. And the one that answers.
    members: Mapping[str, Member] = field(default_factory=dict)
    answers: str = ""

    def is_of(self, member: str) -> bool:
        """Whether a member is the host that was read; an empty one: there is no cluster."""
        return member in ("", self.answers)

    def find(self, type_: str, name: str, project: str, member: str = "") -> Any:
        """An object, where there is one; of a cluster's volumes, that of a member."""
        if member:
            name = _on(name, member)
        return self.objects.get((type_, project, name))


def read_script(connection: Connection, pool: str) -> str:
    """The script that reads all, as a tar archive: an answer is a file by its name."""
    commands: list[str] = []

    def run(name: str, command: str, required: bool) -> None:
        file = f'"$work/{name}"'
        failed = f'2>"$work/said-{name}" || mv "$work/said-{name}" "$work/{name}.failed"'
        end = failed if required else "2>/dev/null || :"
        commands.append(f"{{ {command} </dev/null >{file} {end}; }} &")

    for name, path in READS.items():
        run(name, incus_words(connection, ["query", path]), required=True)
    told = shlex.quote(f'timeout 20 {incus_words(connection, ["query"])} "{_HARDWARE}$1" >"$2"')
    commands.append(
        _CLUSTER.format(
            members=incus_words(connection, ["query", _MEMBERS]),
            server=incus_words(connection, ["query", "/1.0"]),
            hardware=told,
        )
    )
    run("volumes", incus_words(connection, ["query", VOLUMES.format(pool=pool)]), required=False)
    if connection.kind != "incus":  # that would be this machine's addresses and cards
        run("addresses", "ip -4 -oneline address", required=False)
        query = [f"--query-gpu={NVIDIA_SMI_FIELDS}", "--format=csv,noheader,nounits"]
        run("nvidia_smi", shlex.join(["timeout", "20", "nvidia-smi", *query]), required=False)
        run("bridge_filter", "cat /proc/sys/net/bridge/bridge-nf-call-iptables", required=False)
        run("user_ids", "cat /etc/subuid /etc/subgid", required=False)
        run("inotify", f"cat {inotify.FILE}", required=False)
        run("gpu_processes", f"sh -c {shlex.quote(_GPU_PROCESSES)}", required=False)
    filters = [*(f"{key}={value}" for key, value in MARK.items()), "status=running"]
    columns = ["--all-projects", "--format", "csv", "--columns", "en"]
    ask = (
        f"{remote_variable(connection)}timeout {MACHINE_DEADLINE} incus "
        f'--project "$project" exec "$name" -n -- {shlex.join([*AGENT_WORDS, "check"])} '
        '</dev/null >"$answer"'
    )
    machine = (
        'project=${1%%,*} name=${1#*,} answer="$2/machine ${1%%,*} ${1#*,}"; '
        # Incus 6.0 loses what a program said, now and then: a success without words is no answer.
        f'{ask} && [ ! -s "$answer" ] && {ask} || '
        # Of a machine that is about to stop the client ends with 255, at which xargs would give up.
        ":"
    )
    # The client has little to do for more than one core at a time, and ends before it needs to
    # free memory: a sixth less of its time.
    first = "export GOMAXPROCS=1 GOGC=off\n"
    if connection.kind == "incus":
        # Clients that start together where none has run before read each other's half-written
        # configuration, find no remote in it, and ask this machine's daemon instead (Incus 6.0).
        first += incus_words(connection, ["query", "/1.0"]) + " </dev/null >/dev/null"
    return _SCRIPT.format(
        first=first,
        list=incus_words(connection, ["list", *columns, *filters]),
        machine=shlex.quote(machine),
        commands="\n".join(commands),
    )


class Reading:
    """A read of the host that is under way."""

    def __init__(self, connection: Connection, pool: str) -> None:
        self._connection = connection
        self._began = time.monotonic()
        script = read_script(connection, pool)
        try:
            self._process = subprocess.Popen(  # noqa: S603  # the operator's own host
                [*shell(connection), script],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        except FileNotFoundError as error:
            said = f"{error.filename} is not installed here"
            raise HostError(explain(connection, said)) from None

    def result(self) -> Live:
        """What was read.

        Raises:
            HostError: there is no ``incus``, no permission, or no answer.
        """
        left = max(0.0, self._began + DEADLINE - time.monotonic())
        try:
            said, failure = self._process.communicate(timeout=left)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise HostError(explain(self._connection, f"no answer in {DEADLINE} s")) from None
        if self._process.returncode:
            raise HostError(explain(self._connection, failure.decode(errors="replace").strip()))
        return parse_live(_unpack(said))


def _unpack(archive: bytes) -> dict[str, str]:
    """Every answer by its name."""
    import tarfile  # not at the top: the read is under way sooner

    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        contents = {each.name.removeprefix("./"): files.extractfile(each) for each in files}
    return {
        name: content.read().decode(errors="replace")
        for name, content in contents.items()
        if content is not None
    }


def read_live(connection: Connection, pool: str) -> Live:
    """Read the host.

    Raises:
        HostError: there is no ``incus``, no permission, or no answer.
    """
    return Reading(connection, pool).result()


def read_machine(connection: Connection, project: str, name: str) -> MachineState | None:
    """What one machine's agent says; None where it does not answer."""
    words = ["exec", name, "--", *AGENT_WORDS, "check"]
    try:
        done = Client(connection).run(*words, project=project, deadline=MACHINE_DEADLINE)
    except HostError:
        return None
    return _machine_state(done.stdout)


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
        if kind == "machine" and (state := _machine_state(text)) is not None:
            project, _, machine = place.partition(" ")
            states[project, machine] = state
    return Live(
        resources=found["resources"],
        nvidia_smi=texts.get("nvidia_smi", ""),
        projects={project["name"]: project["config"] for project in found["projects"]},
        networks={network["name"]: network["config"] for network in managed},
        pools=[pool["name"] for pool in found["pools"]],
        interfaces=[item["name"] for item in found["networks"] if not item["managed"]],
        addresses=_addresses(texts.get("addresses", "")),
        objects=objects,
        machines=states,
        gpu_processes=texts.get("gpu_processes", ""),
        user_ids=texts.get("user_ids", ""),
        inotify_instances=texts.get("inotify", "").strip(),
        # Without the module br_netfilter there is no such file.
        filters_bridges=texts["bridge_filter"].strip() == "1" if "bridge_filter" in texts else None,
        members=members,
        answers=_json(texts["server"])["environment"]["server_name"] if members else "",
    )


def _json(text: str | None) -> Any:
    """An answer; an empty object where there is none."""
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


def _machine_state(text: str) -> MachineState | None:
    """What an agent said; None where it did not answer."""
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
        return MachineState(steps, said.get("answers") or {}, said.get("salt") or "")
    except (ValueError, KeyError, TypeError):
        return None


def _fingerprint(connection: Connection) -> str:
    """The fingerprint of the key that an SSH host shows, as ssh itself tells it."""
    try:
        done = subprocess.run(  # noqa: S603  # the operator's own host
            [*SSH, "-v", "--", connection.target, "true"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "and its fingerprint could not be read"
    keys = re.findall(r"Server host key: (\S+ \S+)", done.stderr)
    return f"its fingerprint is {keys[-1]}" if keys else "and its fingerprint could not be read"


def explain(connection: Connection, said: str) -> str:
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
