"""A real cluster of three Incus daemons on this machine, as Incus' own tests make one.

Each member has namespaces of its own for network, mounts and processes. They meet on a bridge of
the host's Incus, which lets them and their containers reach the internet.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import yaml

from tests.e2e.other_incus import IMAGE, add_remote, find_daemon, give_image
from tests.e2e.places import new_directory, note, remove, remove_cgroups
from tests.e2e.project import incus, run

#: The bridge. The host has .254 on it, and each member the number that its name ends with.
BRIDGE, SUBNET = "stt-e2e-clu", "10.213.70"
NODES = ("node1", "node2", "node3")
#: Seconds for which the cluster has to say the same.
_STABLE = 4

#: What runs first in a member's namespaces: its own /sys, its address, its daemon. The daemon is
#: not process 1 there, and is not the last command either, which a shell may become.
_MEMBER = """set -eu
mount --move /sys /mnt
mount -t sysfs sysfs /sys
mount --move /mnt/fs/cgroup /sys/fs/cgroup
umount -l /mnt
until [ -e /sys/class/net/eth0 ]; do sleep 0.02; done
ip link set lo up
ip address add "$2/24" dev eth0
ip link set eth0 up
ip route add default via "$3"
"$1" --group root
exit
"""
_NAMESPACES = ("--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")


def address_of(node: str) -> str:
    """A member's address on the bridge."""
    return f"{SUBNET}.{node[-1]}"


class Cluster:
    """Three members, the host's image on each, and a group ``gpu`` of the last two."""

    def __init__(self) -> None:
        self.directory = new_directory()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def namespaces(self, node: str) -> list[str]:
        """The words before a command that is to run at a member, as in a shell of its own."""
        (first,) = run("pgrep", "-P", str(self.processes[node].pid)).stdout.split()
        return ["nsenter", "--target", first, "--mount", "--net", "--pid"]

    def environment(self, node: str = NODES[0]) -> dict[str, str]:
        """What reaches a member past any remote."""
        return {"INCUS_DIR": str(self.directory / node)}

    def ask(self, *words: str, node: str = NODES[0], project: str = "default") -> str:
        """What the client says at a member; a failure is an error."""
        return incus(*words, project=project, **self.environment(node))

    def start(self, node: str) -> None:
        """Start a member, or start it again as it was, and wait until it answers."""
        home = self.directory / node
        home.mkdir(exist_ok=True)
        script = self.directory / "member.sh"
        script.write_text(_MEMBER)
        words = [find_daemon(), address_of(node), f"{SUBNET}.254"]
        with (self.directory / f"{node}.log").open("ab") as log:
            process = subprocess.Popen(
                ["unshare", *_NAMESPACES, "sh", str(script), *words],
                env={**os.environ, **self.environment(node)},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        note(self.directory, process)
        self.processes[node] = process
        own = Path("/proc/self/ns/net").readlink()
        while Path(f"/proc/{process.pid}/ns/net").readlink() == own:
            time.sleep(0.01)
        link = self._link(node)
        for words in (
            ["add", link, "type", "veth", "peer", "name", "eth0", "netns", str(process.pid)],
            ["set", link, "master", BRIDGE, "up"],
        ):
            done = run("ip", "link", *words)
            assert done.returncode == 0, done.stderr
        self.ask("admin", "waitready", "--timeout=300", node=node)

    @staticmethod
    def _link(node: str) -> str:
        return f"{BRIDGE}{node[-1]}"

    def kill(self, node: str) -> None:
        """End a member with all that it runs, as when its power fails."""
        process = self.processes.pop(node)
        os.killpg(process.pid, signal.SIGKILL)  # and with it process 1 of its namespace
        process.wait()
        run("ip", "link", "delete", self._link(node))
        remove_cgroups(self.directory / node)

    def wait_for(self, node: str, status: str) -> None:
        """Wait until a member counts as online or offline at the others, and these as online.

        While a new leader is chosen, others may count as offline too: it has to stay so.
        """
        wanted = {each: status if each == node else "ONLINE" for each in NODES}
        other = next(each for each in NODES if each != node)
        since, end = time.monotonic(), time.monotonic() + 300
        while time.monotonic() < since + _STABLE:
            words = ("cluster", "list", "--format=csv", "--columns=ns")
            told = run("incus", *words, env={**os.environ, **self.environment(other)}).stdout
            if dict(line.split(",") for line in told.splitlines()) != wanted:
                since = time.monotonic()
            assert since < end, f"{node} is not {status}: {told}"
            time.sleep(0.2)

    def set_up(self) -> None:
        """Make the cluster."""
        if not os.geteuid():  # in memory, all of it takes a fraction of the time
            run("mount", "-t", "tmpfs", "-o", "size=6g", "tmpfs", str(self.directory))
        self.directory.chmod(0o711)  # root of a container is nobody here
        nat = ("ipv4.nat=true", "ipv6.address=none")
        incus("network", "create", BRIDGE, f"ipv4.address={SUBNET}.254/24", *nat)
        first, *others = NODES
        for node in NODES:
            self.start(node)
        self._preseed(
            first,
            {
                "config": {"core.https_address": f"{address_of(first)}:8443"},
                "cluster": {"enabled": True, "server_name": first},
                "storage_pools": [{"name": "default", "driver": "dir"}],
            },
        )
        for node in others:
            joins = {
                "enabled": True,
                "server_name": node,
                "server_address": f"{address_of(node)}:8443",
                "cluster_token": self.ask("cluster", "add", node, "--quiet").strip(),
            }
            self._preseed(node, {"cluster": joins})
        self.ask("cluster", "group", "create", "gpu")
        for node in others:
            self.ask("cluster", "group", "assign", node, "default,gpu")
        self.ask("cluster", "group", "create", "empty")
        give_image(self.directory, self.environment())

    def _preseed(self, node: str, settings: object) -> None:
        words = ("admin", "init", "--preseed")
        incus(*words, stdin=yaml.safe_dump(settings), **self.environment(node))

    def serve(self, remote: str, configuration: Path, node: str) -> dict[str, str]:
        """Make a member a remote; what the client needs in its environment."""
        address = f"{address_of(node)}:8443"
        return add_remote(remote, address, configuration, self.environment())

    def remove(self) -> None:
        """End it, and remove what it had."""
        for node in list(self.processes):
            self.kill(node)
        run("incus", "network", "delete", BRIDGE)
        remove(self.directory)


__all__ = ["BRIDGE", "IMAGE", "NODES", "SUBNET", "Cluster", "address_of"]
