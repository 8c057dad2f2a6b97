"""What is on the host now: Incus' objects and what each machine's agent says, in one round trip."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.difference import Difference
from declaration.connection import Connection
from host.client import SSH, HostError, incus_words, shell

#: Where the agent is in a machine.
AGENT = "/opt/incus-stt/agent"
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
DEADLINE, MACHINE_DEADLINE = 120, 30
#: What nvidia-smi is asked, in this order.
NVIDIA_SMI_FIELDS = "pci.bus_id,name,memory.total,compute_cap,driver_version"

#: Runs everything at once; each answer has a file of its own.
_SCRIPT = """set -eu
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
{commands}
wait
for file in {required}; do
  [ ! -s "$work/$file.failed" ] || {{ cat "$work/$file.failed" >&2; exit 1; }}
done
printf '{{'
for file in {names}; do
  printf '"%s":"%s",' "$file" "$(base64 -w 0 <"$work/$file")"
done
printf '"end":""}}'
"""


@dataclass(frozen=True)
class AppliedStep:
    """A step as its machine knows it; ``stack`` is the id of the stack that applied it."""

    stack: str
    digest: str
    differences: Sequence[Difference]


@dataclass(frozen=True)
class MachineState:
    """What a machine's agent says: its steps, and answers of its services (``probes``)."""

    steps: Mapping[str, AppliedStep]
    answers: Mapping[str, Any] = field(default_factory=dict)


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
    #: Every object by type, project and name.
    objects: Mapping[tuple[str, str, str], Mapping[str, Any]] = field(default_factory=dict)
    #: What each machine's agent answered, by project and name; a machine without one is missing.
    machines: Mapping[tuple[str, str], MachineState] = field(default_factory=dict)

    def find(self, type_: str, name: str, project: str) -> Mapping[str, Any] | None:
        """An object, where there is one."""
        return self.objects.get((type_, project, name))


#: URLs to ask in a machine, by name.
Probes = Mapping[str, str]


def read_script(
    connection: Connection, pool: str, machines: Mapping[tuple[str, str], Probes]
) -> str:
    """The script that reads all as one JSON object: an answer in base64 by its name."""
    commands: list[str] = []

    def run(name: str, command: str, required: bool) -> None:
        failed = f'"$work/{name}.failed"'
        end = f" 2>{failed}.text || mv {failed}.text {failed}" if required else " 2>/dev/null || :"
        commands.append(f'{{ {command} </dev/null >"$work/{name}"{end}; }} &')

    for name, path in _READS.items():
        run(name, incus_words(connection, ["query", path]), required=True)
    run("volumes", incus_words(connection, ["query", _VOLUMES.format(pool=pool)]), required=False)
    if connection.kind != "incus":  # that would be this machine's cards
        query = [f"--query-gpu={NVIDIA_SMI_FIELDS}", "--format=csv,noheader,nounits"]
        run("nvidia_smi", shlex.join(["timeout", "20", "nvidia-smi", *query]), required=False)
    for number, ((project, machine), probes) in enumerate(machines.items()):
        gets = [word for name, url in probes.items() for word in ("--get", f"{name}={url}")]
        inside = ["exec", machine, "--", "python3", "-IS", AGENT, "check", *gets]
        words = incus_words(connection, inside, project)
        run(f"machine{number}", f"timeout {MACHINE_DEADLINE} env {words}", required=False)
    names = [*_READS, "volumes", "nvidia_smi", *(f"machine{n}" for n in range(len(machines)))]
    touched = [f': >"$work/{name}"' for name in names]
    return _SCRIPT.format(
        commands="\n".join([*touched, *commands]),
        required=" ".join(_READS),
        names=" ".join(names),
    )


def read_live(
    connection: Connection, pool: str, machines: Mapping[tuple[str, str], Probes]
) -> Live:
    """Read the host.

    Raises:
        HostError: there is no ``incus``, no permission, or no answer.
    """
    try:
        done = subprocess.run(  # noqa: S603  # the operator's own host
            [*shell(connection), "sh -s"],
            input=read_script(connection, pool, machines),
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise HostError(explain(connection, f"no answer in {DEADLINE} s")) from None
    except FileNotFoundError as error:
        raise HostError(explain(connection, f"{error.filename} is not installed here")) from None
    if done.returncode:
        raise HostError(explain(connection, done.stderr.strip()))
    return parse_live(json.loads(done.stdout), list(machines))


def parse_live(data: Mapping[str, str], machines: Sequence[tuple[str, str]]) -> Live:
    """The parts of the answers that matter here."""
    texts = {name: b64decode(text).decode(errors="replace") for name, text in data.items()}
    found = {name: json.loads(texts[name]) for name in _READS}
    found["volumes"] = json.loads(texts["volumes"] or "[]")
    managed = [network for network in found["networks"] if network["managed"]]
    objects = {("project", item["name"], item["name"]): item for item in found["projects"]}
    objects |= {("network", "default", item["name"]): item for item in managed}
    for kind in ("profile", "instance", "volume"):
        objects |= {(kind, item["project"], item["name"]): item for item in found[f"{kind}s"]}
    states = {
        place: state
        for number, place in enumerate(machines)
        if (state := _machine_state(texts[f"machine{number}"])) is not None
    }
    return Live(
        resources=found["resources"],
        nvidia_smi=texts["nvidia_smi"],
        projects={project["name"]: project["config"] for project in found["projects"]},
        networks={network["name"]: network["config"] for network in managed},
        pools=[pool["name"] for pool in found["pools"]],
        interfaces=[item["name"] for item in found["networks"] if not item["managed"]],
        objects=objects,
        machines=states,
    )


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
        return MachineState(steps, said.get("answers") or {})
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
