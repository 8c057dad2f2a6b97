"""Open connections go on while the rules of a host's only bridge are written again.

Another bridge on the host would hide it: its own rules keep the kernel translating. So this is done
in network namespaces, with the chains that Incus 6.0 makes: the real thing is in
``test_environments.py``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.e2e.project import run

ROOT = Path(__file__).resolve().parents[2]
#: A host between a machine and a server, which does not know the machine's network.
HOST = """import contextlib, subprocess, sys, time
from pathlib import Path
from declaration.connection import Connection
from host.hold import held

ECHO = '''import socket
with socket.create_server(("10.8.8.2", 9000)) as server:
    one, _ = server.accept()
    while data := one.recv(9):
        one.sendall(data)
'''
ASK = '''import socket, sys
with socket.create_connection(("10.8.8.2", 9000), 10) as one:
    for line in sys.stdin:
        one.sendall(b"?")
        print("answered" if one.recv(1) else "ended", flush=True)
'''
RULES = '''table inet incus {
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
'''

def sh(script, *words):
    subprocess.run(["sh", "-ec", script, "sh", *map(str, words)], check=True)

def other(stack, link, subnet, number, *routes):
    \"\"\"A host of its own at the other end of a link; what runs a program there.\"\"\"
    host = stack.enter_context(subprocess.Popen(["unshare", "--net", "sleep", "60"]))
    stack.callback(host.kill)
    own, its = Path("/proc/self/ns/net"), Path(f"/proc/{host.pid}/ns/net")
    while own.readlink() == its.readlink():
        time.sleep(0.01)
    within = ["nsenter", "--target", str(host.pid), "--net"]
    sh('ip link add "$1" type veth peer name eth0 netns "$2"', link, host.pid)
    sh('ip address add "$1.254/24" dev "$2"; ip link set "$2" up', subnet, link)
    for words in (["address", "add", f"{subnet}.{number}/24", "dev", "eth0"],
                  ["link", "set", "eth0", "up"], *routes):
        subprocess.run([*within, "ip", *words], check=True)
    return [*within, sys.executable, "-c"]

with contextlib.ExitStack() as stack:
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    server = other(stack, "outside", "10.8.8", 2)
    default = ["route", "add", "default", "via", "10.9.9.254"]
    machine = other(stack, "net-x", "10.9.9", 1, default)
    subprocess.run(["nft", "-f", "-"], input=RULES, text=True, check=True)
    echo = stack.enter_context(subprocess.Popen([*server, ECHO]))
    stack.callback(echo.kill)
    time.sleep(1)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    asking = stack.enter_context(subprocess.Popen([*machine, ASK], **pipes))
    stack.callback(asking.kill)

    def ask():
        asking.stdin.write("now\\n")
        assert asking.stdout.readline() == "answered\\n"

    ask()
    with held(Connection("local"), "net-x"):
        subprocess.run(["nft", "delete", "table", "inet", "incus"], check=True)
        for _ in range(3):
            ask()
        subprocess.run(["nft", "-f", "-"], input=RULES, text=True, check=True)
    ask()
print("all answered")
"""


def test_an_open_connection_goes_on() -> None:
    done = run("unshare", "--net", sys.executable, "-c", HOST, cwd=ROOT)
    assert done.stdout == "all answered\n", done.stderr
