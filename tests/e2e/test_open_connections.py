"""Open connections go on while the rules of a host's only bridge are written again.

Another bridge on the host would hide it: its own rules keep the kernel translating. So this is done
in network namespaces, with the chains that Incus 6.0 makes: the real thing is in
``test_environments.py``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from declaration.connection import Connection
from host.hold import held
from tests.e2e.project import run
from tests.e2e.reachability import other_host

ROOT = Path(__file__).resolve().parents[2]
#: Answers whoever connects, with what it got.
ECHO = """import socket
with socket.create_server(("10.8.8.2", 9000)) as server:
    print("listens", flush=True)
    one, _ = server.accept()
    while data := one.recv(9):
        one.sendall(data)
"""
#: Asks over one connection, whenever it is told to.
ASK = """import socket, sys
with socket.create_connection(("10.8.8.2", 9000), 10) as one:
    for line in sys.stdin:
        one.sendall(b"?")
        print("answered" if one.recv(1) else "ended", flush=True)
"""
RULES = """table inet incus {
    chain pstrt.net-x {
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr 10.9.9.0/24 ip daddr != 10.9.9.0/24 masquerade
    }
    chain acl.net-x {
        ct state established,related accept
        iifname "net-x" ip daddr 10.8.8.2 accept
        iifname "net-x" drop
        oifname "net-x" drop
    }
    chain aclin.net-x {
        type filter hook input priority filter; policy accept;
        iifname "net-x" jump acl.net-x
    }
    chain aclout.net-x {
        type filter hook output priority filter; policy accept;
        oifname "net-x" jump acl.net-x
    }
    chain aclfwd.net-x {
        type filter hook forward priority filter; policy accept;
        iifname "net-x" jump acl.net-x
        oifname "net-x" jump acl.net-x
    }
}
"""


def main() -> None:
    """In a network of its own, a host between a machine and a server without a way back."""
    program, pipe = (sys.executable, "-c"), subprocess.PIPE
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    assert run("nft", "-f", "-", input=RULES).returncode == 0
    machine = ("net-x", "10.9.9", 1)
    with other_host("outside", "10.8.8", 2, *program, ECHO, stdout=pipe) as server:
        assert server.stdout
        assert server.stdout.readline() == "listens\n"
        with other_host(
            *machine, *program, ASK, gateway="10.9.9.254", stdin=pipe, stdout=pipe, bufsize=1
        ) as asking:

            def ask() -> None:
                assert asking.stdin and asking.stdout
                asking.stdin.write("now\n")
                assert asking.stdout.readline() == "answered\n"

            ask()
            with held(Connection("local"), "net-x"):
                assert run("nft", "delete", "table", "inet", "incus").returncode == 0
                for _ in range(3):
                    ask()
                assert run("nft", "-f", "-", input=RULES).returncode == 0
            ask()
    print("all answered")


def test_an_open_connection_goes_on() -> None:
    done = run(
        "unshare", "--net", sys.executable, "-m", "tests.e2e.test_open_connections", cwd=ROOT
    )
    assert done.stdout == "all answered\n", done.stderr


if __name__ == "__main__":
    main()
