"""How the host is read: Incus' objects, the agents of its machines and the host itself, at once."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
import time

from agent.cards import NVIDIA_SMI_FIELDS
from declaration.connection import Connection
from host import inotify
from host.client import SSH, Client, HostError, incus_words, remote_variable, shell
from host.firewall import READ as FIREWALL_READ
from host.objects import MARK
from host.read import AGENT_WORDS, READS, Live, MachineState, machine_state, parse_live

_MEMBERS, _HARDWARE = "/1.0/cluster/members?recursion=1", "/1.0/resources?target="
VOLUMES = "/1.0/storage-pools/{pool}/volumes/custom?recursion=1&all-projects=true"
#: Seconds that the read may take in all, and of these each machine.
DEADLINE, MACHINE_DEADLINE = 120, 30

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

#: Asks the agents. Machines are found by their mark. Of many machines as many answer at a time as
#: the host has room for: all at once take longer.
_MACHINES = """{{ {list} </dev/null |
  xargs -P "$(($(nproc) * 2))" -I '{{}}' sh -c {machine} sh '{{}}' "$work"
}} 2>/dev/null &"""

#: Reads everything at once; each answer has a file of its own.
_SCRIPT = """set -eu
{first}
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
{commands}
wait
for failed in "$work"/*.failed; do
  [ ! -e "$failed" ] || {{ cat "$failed" >&2; exit 1; }}
done
tar -C "$work" -cf - .
"""


def _capture(name: str, command: str, required: bool = False) -> str:
    """Shell text that writes what a command says into a file of the answer's name, meanwhile."""
    file = f'"$work/{name}"'
    failed = f'2>"$work/said-{name}" || mv "$work/said-{name}" "$work/{name}.failed"'
    end = failed if required else "2>/dev/null || :"
    return f"{{ {command} </dev/null >{file} {end}; }} &"


def _host_commands() -> list[str]:
    """Shell text that reads what Incus does not say of its host."""
    cards = [f"--query-gpu={NVIDIA_SMI_FIELDS}", "--format=csv,noheader,nounits"]
    commands = {
        "addresses": "ip -4 -oneline address",
        "nvidia_smi": shlex.join(["timeout", "20", "nvidia-smi", *cards]),
        "bridge_filter": "cat /proc/sys/net/bridge/bridge-nf-call-iptables",
        "user_ids": "cat /etc/subuid /etc/subgid",
        "inotify": f"cat {inotify.FILE}",
        "firewall": f"sh -c {shlex.quote(FIREWALL_READ)}",
        "gpu_processes": f"sh -c {shlex.quote(_GPU_PROCESSES)}",
    }
    return [_capture(name, command) for name, command in commands.items()]


def _client_commands(connection: Connection, pool: str) -> list[str]:
    """Shell text that asks Incus and the agents with the client, for each question one."""

    def query(path: str) -> str:
        return incus_words(connection, ["query", path])

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
    listed = incus_words(connection, ["list", *columns, *filters])
    told = f'timeout 20 {incus_words(connection, ["query"])} "{_HARDWARE}$1" >"$2"'
    return [
        _MACHINES.format(list=listed, machine=shlex.quote(machine)),
        *(_capture(name, query(path), required=True) for name, path in READS.items()),
        _CLUSTER.format(members=query(_MEMBERS), server=query("/1.0"), hardware=shlex.quote(told)),
        _capture("volumes", query(VOLUMES.format(pool=pool))),
    ]


def read_script(connection: Connection, pool: str) -> str:
    """The script that reads all, as a tar archive: an answer is a file by its name."""
    commands = _client_commands(connection, pool)
    if connection.kind != "incus":  # that would be this machine's addresses and cards
        commands += _host_commands()
    # The client has little to do for more than one core at a time, and ends before it needs to
    # free memory: a sixth less of its time.
    first = "export GOMAXPROCS=1 GOGC=off\n"
    if connection.kind == "incus":
        # Clients that start together where none has run before read each other's half-written
        # configuration, find no remote in it, and ask this machine's daemon instead (Incus 6.0).
        first += incus_words(connection, ["query", "/1.0"]) + " </dev/null >/dev/null"
    return _SCRIPT.format(first=first, commands="\n".join(commands))


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
            # What the shell has started may hold its output open, for as long as it hangs.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.communicate(timeout=1)
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
    """What one machine's agent says; None if it does not answer."""
    words = ["exec", name, "--", *AGENT_WORDS, "check"]
    try:
        done = Client(connection).run(*words, project=project, deadline=MACHINE_DEADLINE)
    except HostError:
        return None
    return machine_state(done.stdout)


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
