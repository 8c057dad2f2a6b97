"""`make doctor` of a stack that was built, and is broken: in its own machine, and in networks of
their own. What is broken of the host without it is in ``test_doctor_host.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.doctor import Screen, in_network, program
from tests.e2e.project import STACK, Project, incus

MACHINE = "gpu-server"
UNIT = "faster-whisper"
HEALTHY = "until curl -sf localhost:8000/health; do sleep 0.1; done"
STEPS = "/var/lib/incus-stt/steps"
KEY = "/etc/incus-stt/stt_server/api-key"


def bridge(project: Project) -> list[str]:
    """A script that makes the stack's bridge in a network of its own, with its address."""
    name = f"net-{project.domain}"
    return [
        f"ip link add {name} type bridge",
        f"ip address add {project.subnet}.254/24 dev {name}",
        f"ip link set {name} up",
        "sysctl -qw net.ipv4.ip_forward=1",
    ]


@contextmanager
def inside(project: Project, breaks: str, mends: str) -> Iterator[None]:
    """The machine, broken by one shell script and mended by another."""
    project.inside("sh", "-ec", breaks)
    try:
        yield
    finally:
        project.inside("sh", "-ec", mends)


def test_a_good_host(project: Project) -> None:
    screen = Screen(project)
    assert (screen.status, screen.of("broken")) == (0, set()), screen.said
    for subject, said in {
        "Incus": "answers",
        "network": f"net-{project.domain}, {project.subnet}.254/24",
        MACHINE: f"runs, {project.subnet}.1",
        f"{MACHINE} {UNIT}": "./models/tiny-digits in int8_float32 on cpu",
        f"{MACHINE} key": "taken (200); without it: 401",
        f"{MACHINE} verification": '"one two three", word error rate 0.0',
        f"{MACHINE} versions": "as pinned: ",
        f"{MACHINE} disk": "free on /",
        f"{MACHINE} DNS": f"knows {MACHINE}.incus",
    }.items():
        found = [each["found"] for each in screen.checks if each["subject"] == subject]
        assert any(said in each for each in found), screen.said
    shown = project.make("doctor")
    assert shown.returncode == 0 and shown.stdout.splitlines()[-1].endswith(" 0 broken")
    assert f"good      {MACHINE} key" in shown.stdout


# The machine


def test_a_machine_that_is_stopped(project: Project) -> None:
    incus("stop", "--force", MACHINE, project=project.domain)
    try:
        screen = Screen(project)
    finally:
        incus("start", MACHINE, project=project.domain)
        project.inside("timeout", "300", "sh", "-c", HEALTHY)
    assert (screen.status, screen.of("broken")) == (1, {MACHINE})
    assert "does not run: stopped -> make up STACK=e2e, or: incus start" in screen.line(
        MACHINE, "broken"
    )
    assert "Traceback" not in screen.said


def test_a_service_that_is_stopped_and_one_that_was_started_again(project: Project) -> None:
    service = f"{MACHINE} {UNIT}"
    start = f"systemctl start stt.socket {UNIT}"
    with inside(project, f"systemctl stop stt.socket {UNIT}", start):
        screen = Screen(project)
    assert "does not run: inactive" in screen.line(service, "broken")
    assert f"journalctl -u {UNIT}" in screen.line(service, "broken")
    kill = (
        f"systemctl kill -s KILL {UNIT}; until curl -sf localhost:8000/health; do sleep 0.2; done"
    )
    with inside(project, kill, f"systemctl stop {UNIT}; {start}"):
        screen = Screen(project)
    assert "systemd has started it again once" in screen.line(service, "doubtful")
    assert screen.status == 0


def test_a_run_that_was_cut_off(project: Project) -> None:
    mark = f"{STEPS}/stt_server%2Fservice.begun"
    with inside(project, f"echo '{{}}' >{mark}", f"rm {mark}"):
        screen = Screen(project)
    assert "cut off (or still works) at stt_server/service" in screen.line(MACHINE, "broken")


def test_a_machine_whose_agent_is_gone(project: Project) -> None:
    agent = "/opt/incus-stt/agent"
    with inside(project, f"mv {agent} {agent}.x", f"mv {agent}.x {agent}"):
        screen = Screen(project)
    assert "runs, and has no agent -> make up" in screen.line(MACHINE, "broken")


def test_another_key_in_the_machine(project: Project) -> None:
    with inside(project, f"cp -p {KEY} /root/k; echo other-key >{KEY}", f"mv /root/k {KEY}"):
        screen = Screen(project)
    assert f"not as it was applied: {KEY}: (another secret, not shown)" in screen.line(
        f"{MACHINE} key", "broken"
    )
    assert "other-key" not in screen.said


def test_a_service_that_refuses_the_key(project: Project) -> None:
    """The key in its files is right, and the service runs with another one."""
    restart = f"systemctl restart {UNIT}; {HEALTHY}"
    put = f"cp -p {KEY} /root/k; printf other-key-x >{KEY}; {restart}; mv /root/k {KEY}"
    with inside(project, put, restart):
        screen = Screen(project)
    assert "refuses the machine's key (401)" in screen.line(f"{MACHINE} key", "broken")


def test_no_name_server_in_the_machine(project: Project) -> None:
    file = "/etc/resolv.conf"
    nobody = (
        f"mv {file} {file}.x; echo nameserver 127.0.0.9 >{file}; systemctl stop systemd-resolved"
    )
    with inside(project, nobody, f"mv {file}.x {file}; systemctl start systemd-resolved"):
        screen = Screen(project)
    said = screen.line(f"{MACHINE} DNS", "broken")
    assert f"{MACHINE}.incus is not known, not {project.subnet}.1" in said


def test_a_full_disk_in_the_machine(project: Project) -> None:
    with inside(project, "mount -t tmpfs -o size=4m none /srv/models", "umount -l /srv/models"):
        screen = Screen(project)
    assert "0.0 of 0.0 GiB free on /srv/models" in screen.line(f"{MACHINE} disk", "broken")


def test_a_service_that_was_never_verified(project: Project) -> None:
    record = f"{STEPS}/stt_server%2Fverify.json"
    with inside(project, f"mv {record} /root/v", f"mv /root/v {record}"):
        screen = Screen(project)
    assert "never verified -> make up" in screen.line(f"{MACHINE} verification", "doubtful")


def test_another_version_than_the_one_that_is_pinned(project: Project) -> None:
    lock = project.root / "declaration" / "venv.py"
    before = lock.read_text()
    lock.write_text(f"{before}\nUV_DIRECTORY += '-next'\n")
    try:
        screen = Screen(project)
    finally:
        lock.write_text(before)
    assert "differs: uv " in screen.line(f"{MACHINE} versions", "doubtful")


def test_a_machine_of_another_stack(project: Project) -> None:
    file = project.root / "stacks" / "Pulumi.other.yaml"
    file.write_text((project.root / "stacks" / f"Pulumi.{STACK}.yaml").read_text())
    try:
        screen = Screen(project, stack="other")
    finally:
        file.unlink()
    assert f"belongs to the stack {STACK} of the project stt" in screen.line(MACHINE, "broken")
    assert not any(each["subject"] == f"{MACHINE} key" for each in screen.checks)


# The network, in a namespace of its own


def test_a_bridge_without_its_address(project: Project) -> None:
    name, address = f"net-{project.domain}", f"{project.subnet}.254/24"
    screen = Screen(project, *in_network("sysctl -qw net.ipv4.ip_forward=1"))
    assert f"the host's interface {name} is gone -> restart" in screen.line("network", "broken")
    taken = [*bridge(project), f"ip address del {address} dev {name}"]
    said = Screen(project, *in_network(*taken)).line("network", "broken")
    assert f"{name} has no address, and not {address}" in said
    # The next step, as it is told, mends it.
    screen = Screen(project, *in_network(*taken, said.partition("on the host: ")[2]))
    screen.line("network", "good")


def test_dockers_policy_of_forward(project: Project) -> None:
    chain = "nft add chain ip filter FORWARD '{type filter hook forward priority 0; policy drop;}'"
    drop = [*bridge(project), "nft add table ip filter", chain]
    screen = Screen(project, *in_network(*drop))
    said = screen.line("forwarding", "broken")
    assert f"drops what net-{project.domain} sends: policy DROP of ip filter FORWARD" in said
    assert screen.of("broken") == {"forwarding"}
    # The next step, as it is told, mends it.
    mend = said.partition("on the host: ")[2].partition(" (docs")[0]
    screen = Screen(project, *in_network(*drop, mend))
    screen.line("forwarding", "good")


def test_a_kernel_that_forwards_nothing(project: Project) -> None:
    off = in_network(*bridge(project), "sysctl -qw net.ipv4.ip_forward=0")
    assert "net.ipv4.ip_forward=0" in Screen(project, *off).line("forwarding", "broken")


def test_a_subnet_that_somebody_else_has(project: Project) -> None:
    vpn = ["ip link add vpn type bridge", f"ip address add {project.subnet}.77/25 dev vpn"]
    screen = Screen(project, *in_network(*bridge(project), *vpn, "ip link set vpn up"))
    said = screen.line("subnet", "broken")
    assert f"{project.subnet}.0/24 is taken: route {project.subnet}.0/25 dev vpn" in said


# The clock


def test_a_wrong_clock_and_one_that_is_not_synchronized(project: Project, tmp_path: Path) -> None:
    path = program(tmp_path / "bin", "timedatectl", "echo no")
    assert "not synchronized" in Screen(project, PATH=path).line("clock", "doubtful")
    slow = program(tmp_path / "bin", "date", "echo $(($(/bin/date +%s) - 7200))")
    screen = Screen(project, PATH=slow)
    assert "s away from this computer's" in screen.line("clock", "broken")
    assert "s away from its host's" in screen.line(f"{MACHINE} clock", "broken")


#: Makes a package whose next version replaces a library that services have open, and a source of
#: packages for it that looks like the distribution's for security.
PROBE = r"""
mkdir -p /srv/probe/package/DEBIAN
cd /srv/probe
build() {
    cat >package/DEBIAN/control <<END
Package: incus-stt-probe
Version: $1
Architecture: all
Maintainer: a test
Description: a probe
END
    dpkg-deb --build package "probe_$1.deb" >/dev/null
}
build 1
dpkg --install probe_1.deb >/dev/null
cat >package/DEBIAN/postinst <<'END'
#!/bin/sh
set -e
file=$(readlink -f "$(ldconfig -p | sed -n 's/.*libz[.]so[.]1 .*=> //p' | head -n 1)")
cp -a "$file" "$file.new"
mv "$file.new" "$file"
END
chmod 755 package/DEBIAN/postinst
build 2
sum() { sha256sum "$1" | cut -d ' ' -f 1; }
size() { stat -c %s "$1"; }
{
    dpkg-deb --field probe_2.deb
    printf 'Filename: ./probe_2.deb\nSize: %s\n' "$(size probe_2.deb)"
    printf 'SHA256: %s\n' "$(sum probe_2.deb)"
} >Packages
printf 'Label: Debian-Security\nSuite: stable-security\n' >Release
printf 'SHA256:\n %s %s Packages\n' "$(sum Packages)" "$(size Packages)" >>Release
echo 'deb [trusted=yes] file:/srv/probe ./' >/etc/apt/sources.list.d/probe.list
apt-get -q -o Dir::Etc::sourcelist=/etc/apt/sources.list.d/probe.list \
    -o Dir::Etc::sourceparts=- -o APT::Get::List-Cleanup=0 update
"""
GONE = (
    "dpkg --purge incus-stt-probe >/dev/null; rm -r /srv/probe /etc/apt/sources.list.d/probe.list"
)


@pytest.mark.seldom
def test_security_updates(project: Project) -> None:
    """They are seen, installed through a bridge that is closed otherwise, and take effect."""
    subject = f"{MACHINE} updates"
    process = ("systemctl", "show", "-p", "MainPID", "--value", UNIT)
    with inside(project, PROBE, GONE):
        assert "incus-stt-probe; asked" in Screen(project).line(subject, "doubtful")
        before = project.inside(*process)
        done = project.make("updates")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "  incus-stt-probe 1 -> 2\n" in done.stdout
        restarted = re.search(r"^  restarted: (.*)$", done.stdout, re.MULTILINE)
        assert restarted and f"{UNIT}.service" in restarted[1], done.stdout
        assert project.inside(*process) != before
        assert project.transcribe("one_two_three").json["text"] == "one two three"
        found = Screen(project).line(subject, "good")
        assert "no security updates are waiting; asked " in found
