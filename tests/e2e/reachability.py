"""Who reaches whom: every pair of machine, port and direction, tried."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.e2e.project import Project, incus, run, wait_until
from tests.ports import free_port

Address = tuple[str, int]


#: Tries addresses, all at once: TCP, or UDP with an answer to one of three packets; prints those
#: that answer.
TRY = """import json, socket, sys
from concurrent.futures import ThreadPoolExecutor
source, seconds, ends = json.loads(sys.argv[1])
def opens(end):
    protocol, host, port = end
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as one:
        one.settimeout(seconds)
        try:
            one.bind((source, 0))
            one.connect((host, port))
            if protocol == "tcp":
                return True
            one.settimeout(1)
            for _ in range(3):
                one.send(b"?")
                try:
                    return bool(one.recv(1))
                except TimeoutError:
                    pass
        except OSError:
            pass
    return False
with ThreadPoolExecutor(64) as pool:
    print(json.dumps([end for end, ok in zip(ends, pool.map(opens, ends)) if ok]))
"""
#: Answers on a port: over TCP on all addresses, over UDP on those that are named, from each.
ANSWER = """import socket, sys, threading
port, addresses = int(sys.argv[1]), sys.argv[2:]
listener = socket.create_server(("", port))
listener.listen(64)
def echo(address):
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind((address, port))
    while True:
        data, who = udp.recvfrom(9)
        udp.sendto(data, who)
for each in addresses:
    threading.Thread(target=echo, args=[each], daemon=True).start()
while True:
    listener.accept()[0].close()
"""
#: Opens a connection to each address every 20 ms, and waits for it for some seconds; prints where
#: one was opened, and where one was not.
TRY_ON = """import json, socket, sys, time
from concurrent.futures import ThreadPoolExecutor
seconds, patience, ends = json.loads(sys.argv[1])
def opens(end):
    try:
        socket.create_connection(tuple(end), patience).close()
        return True, end
    except OSError:
        return False, end
with ThreadPoolExecutor(1000) as pool:
    tried, until = [], time.monotonic() + seconds
    print("begun", flush=True)
    while time.monotonic() < until:
        tried += [pool.submit(opens, end) for end in ends]
        time.sleep(0.02)
    found = [each.result() for each in tried]
print(json.dumps([[end for end in ends if (did, end) in found] for did in (True, False)]))
"""
#: A host with an address, and a way to other networks, as soon as it has its network card.
HOST = """until ip link show eth0 >/dev/null 2>&1; do sleep 0.02; done
ip address add "$1" dev eth0
ip link set eth0 up
[ -z "$2" ] || ip route add default via "$2"
shift 2
exec "$@"
"""


def opened(
    project: Project, *ends: Address, source: str = "", domain: str = "", seconds: float = 2
) -> list[Address]:
    """Where the machine ``other`` (of another domain) gets a connection to, from an address."""
    tried = [("tcp", *end) for end in ends]
    words = ("exec", "other", "--", "python3", "-c", TRY, json.dumps([source, seconds, tried]))
    found = json.loads(incus(*words, project=domain or project.domain))
    return [(host, port) for _, host, port in found]


@contextmanager
def opened_meanwhile(
    project: Project, *ends: Address, seconds: float, patience: float
) -> Iterator[tuple[list[Address], list[Address]]]:
    """Where the machine ``other`` gets a connection to within ``patience`` s, and where not.

    It tries so for ``seconds``, all the time; both lists are there once that is over.
    """
    asked = json.dumps([seconds, patience, ends])
    words = ["incus", "--project", project.domain, "exec", "other", "--", "python3", "-c", TRY_ON]
    found: tuple[list[Address], list[Address]] = ([], [])
    with subprocess.Popen([*words, asked], stdout=subprocess.PIPE, text=True) as trying:
        assert trying.stdout
        assert trying.stdout.readline() == "begun\n"
        yield found
        for each, told in zip(found, json.loads(trying.stdout.read()), strict=True):
            each += [(host, port) for host, port in told]


@contextmanager
def other_host(
    link: str, subnet: str, number: int, *command: str, gateway: str = "", **pipes: Any
) -> Iterator[subprocess.Popen[str]]:
    """A host of its own at the other end of a link, on which a program runs.

    This host has .254 there. ``gateway`` is the address by which it reaches other networks.
    """
    words = ["unshare", "--net", "sh", "-ec", HOST, "sh", f"{subnet}.{number}/24", gateway]
    with subprocess.Popen([*words, *command], text=True, **pipes) as process:
        try:
            own = Path("/proc/self/ns/net").readlink()
            wait_until(lambda: Path(f"/proc/{process.pid}/ns/net").readlink() != own)
            pair = ("add", link, "type", "veth", "peer", "name", "eth0", "netns", str(process.pid))
            for ip in (
                ("link", *pair),
                ("address", "add", f"{subnet}.254/24", "dev", link),
                ("link", "set", link, "up"),
            ):
                done = run("ip", *ip)
                assert done.returncode == 0, done.stderr
            yield process
        finally:
            process.kill()  # and with it the network


@contextmanager
def other_network(link: str, subnet: str, port: int) -> Iterator[Address]:
    """A host on a network that this one is in: it knows the way to no bridge, as in a house."""
    end = f"{subnet}.2", port
    with other_host(link, subnet, 2, "python3", "-c", ANSWER, str(port)):
        wait_until(lambda: _answers(end))
        yield end


#: A port that no service has.
SOME_PORT = 9000
#: Who tries, who is tried, with which protocol, at which port.
Way = tuple[str, str, str, int]


@dataclass(frozen=True)
class Matrix:
    """Every machine of two domains, the host's address on both bridges, and two ports of each."""

    #: What the two are called in it.
    names: tuple[str, str]
    both: tuple[Project, Project]
    #: A port where the host answers, on all of its addresses.
    host_port: int

    @property
    def machines(self) -> dict[str, tuple[Project, str, str]]:
        """By the name in the matrix: project, machine, address."""
        return {
            f"{environment} {name}": (project, name, f"{project.subnet}.{number}")
            for environment, project in zip(self.names, self.both, strict=True)
            for number, name in enumerate(("gpu-server", "other"), 1)
        }

    @property
    def ends(self) -> list[tuple[str, str, str, int]]:
        """What is tried: its name, protocol, address and port."""
        services = [("tcp", 8000), ("tcp", SOME_PORT), ("udp", SOME_PORT)]
        host = [(protocol, self.host_port) for protocol in ("tcp", "udp")]
        return [
            *(
                (name, protocol, address, port)
                for name, (_, _, address) in self.machines.items()
                for protocol, port in services
            ),
            *(
                (f"{environment} host", protocol, f"{project.subnet}.254", port)
                for environment, project in zip(self.names, self.both, strict=True)
                for protocol, port in host
            ),
        ]

    def tried_from(self, name: str) -> set[Way]:
        """What gets through from a machine, or from the ``host``."""
        ends = self.ends
        asked = json.dumps(["", 2, [end[1:] for end in ends]])
        if name == "host":
            said = subprocess.run(
                ["python3", "-c", TRY, asked], capture_output=True, text=True, check=True
            ).stdout
        else:
            project, machine, _ = self.machines[name]
            said = incus("exec", machine, "--", "python3", "-c", TRY, asked, project=project.domain)
        found = {tuple(each) for each in json.loads(said)}
        return {(name, end[0], end[1], end[3]) for end in ends if end[1:] in found}

    def passing(self) -> set[Way]:
        """All that gets through, from everywhere."""
        with ThreadPoolExecutor() as pool:
            return set().union(*pool.map(self.tried_from, ["host", *self.machines]))

    def expected(self, *more: Way) -> set[Way]:
        """What docs/security.md allows, and ``more``."""
        every = [(name, *end) for name in ("host", *self.machines) for end in self.ends]
        return {
            (source, to, protocol, port)
            for source, to, protocol, _, port in every
            if source in ("host", to)
            # Within a domain, its service; nothing else, from wherever.
            or (to == f"{source.split()[0]} gpu-server" and (protocol, port) == ("tcp", 8000))
        } - {
            # Nobody listens there.
            (source, to, "tcp", 8000)
            for source, to, *_ in every
            if to.endswith(" other")
        } | set(more)


@contextmanager
def answers_everywhere(both: tuple[Project, Project]) -> Iterator[int]:
    """Every machine answers on ``SOME_PORT``, and the host on the port that this gives."""
    port = free_port()
    ends = [("127.0.0.1", port)]
    with ExitStack() as stack:
        for project in both:
            for number, machine in enumerate(("gpu-server", "other"), 1):
                address = f"{project.subnet}.{number}"
                unit = ("systemd-run", "-q", "-u", "answers", "python3", "-c", ANSWER)
                project.inside(*unit, str(SOME_PORT), address, machine=machine)
                stack.callback(project.inside, "systemctl", "stop", "answers", machine=machine)
                ends.append((address, SOME_PORT))
        bridges = [f"{project.subnet}.254" for project in both]
        words = ["python3", "-c", ANSWER, str(port), *bridges]
        process = stack.enter_context(subprocess.Popen(words))
        stack.callback(process.terminate)
        for end in ends:
            wait_until(partial(_answers, end))
        yield port


def _answers(end: Address) -> bool:
    with socket.create_connection(end, 5):
        return True
