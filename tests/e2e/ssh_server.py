"""An sshd of the tests' own, with its own keys, configuration and user entry."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.places import new_directory, note
from tests.e2e.project import run
from tests.ports import free_port

#: A mount namespace with a user for sshd's privilege separation, where the host has none.
START = """
grep -q ^sshd: /etc/passwd || {
  { cat /etc/passwd; echo sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin; } >"$1/passwd"
  mount --bind "$1/passwd" /etc/passwd
}
mkdir -p /run/sshd
chmod 0755 /run/sshd
exec "$2" -D -e -f "$1/sshd_config" 2>>"$1/log"
"""


def find_sshd(directory: Path) -> str | None:
    """The host's sshd, else one from its package, which is not installed."""
    if installed := shutil.which("sshd", path="/usr/sbin:/usr/bin"):
        return installed
    done = run("apt-get", "download", "-q", "openssh-server", "libwrap0", cwd=directory)
    for package in directory.glob("*.deb"):
        run("dpkg", "-x", str(package), str(directory / "root"))
    return str(directory / "root/usr/sbin/sshd") if done.returncode == 0 else None


class SshServer:
    """``ssh stt-test`` reaches it with the client configuration in ``config``.

    ``address`` is where it listens, ``namespaces`` are the words that lead there, and
    ``variables`` what its sessions have in their environment.
    """

    def __init__(
        self,
        directory: Path,
        sshd: str,
        address: str = "127.0.0.1",
        namespaces: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.directory, self.sshd = directory, sshd
        self.address, self.namespaces = address, namespaces
        self.process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        for key in ("host", "user"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / key))
        public = (directory / "user.pub").read_text()
        (directory / "authorized").write_text(public)
        (directory / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress {address}\nHostKey {directory}/host\n"
            f"AuthorizedKeysFile {directory}/authorized\nPidFile none\nStrictModes no\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n"
            "LogLevel VERBOSE\n"
            + "".join(f"SetEnv {name}={value}\n" for name, value in (variables or {}).items())
        )
        common = (
            f"  Port {self.port}\n  User root\n  IdentitiesOnly yes\n"
            f"  IdentityFile {directory}/user\n  UserKnownHostsFile {directory}/known\n"
        )
        self.config = directory / "config"
        self.config.write_text(
            f"Host stt-test\n  HostName {address}\n{common}"
            f"Host stt-behind\n  HostName localhost\n  ProxyJump stt-test\n{common}"
        )
        # As a person's ~/.ssh/config would be read: ssh takes its home from the user database.
        # What clients keep open is not in ~/.ssh, which all tests have in common.
        self.path = directory / "bin"
        self.path.mkdir()
        wrapper = self.path / "ssh"
        own = f"-F {self.config} -o ControlPath={directory}/%C"
        wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} {own} "$@"\n')
        wrapper.chmod(0o755)

    def know_host_key(self) -> None:
        """What answering `yes` to ssh's question does."""
        public = " ".join((self.directory / "host.pub").read_text().split()[:2])
        hosts = f"[{self.address}]:{self.port},[localhost]:{self.port}"
        (self.directory / "known").write_text(f"{hosts} {public}\n")

    @property
    def fingerprint(self) -> str:
        said = run("ssh-keygen", "-l", "-f", str(self.directory / "host.pub")).stdout
        return said.split()[1]

    @property
    def logins(self) -> int:
        """How many connections were let in so far."""
        return (self.directory / "log").read_text().count("Accepted publickey")

    def start(self) -> None:
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        if "root" in Path(self.sshd).parts and self.sshd.startswith(str(self.directory.parent)):
            libraries = next(Path(self.sshd).parents[2].glob("usr/lib/*-linux-gnu"))
            environment["LD_LIBRARY_PATH"] = str(libraries)
        self.process = subprocess.Popen(
            [
                *(*self.namespaces, "unshare", "--mount"),
                *("sh", "-euc", START, "sh", str(self.directory), self.sshd),
            ],
            env=environment,
            start_new_session=True,
        )
        note(self.directory, self.process)
        for _ in range(600):
            try:
                socket.create_connection((self.address, self.port), 1).close()
                return
            except OSError:
                time.sleep(0.1)
        raise AssertionError((self.directory / "log").read_text())

    def cut(self) -> None:
        """End the server and all its connections, as a host that is cut off."""
        assert self.process
        self.process.send_signal(signal.SIGSTOP)  # nobody who is cut off is let in again
        for child in run("pgrep", "-P", str(self.process.pid)).stdout.split():
            for each in [*run("pgrep", "-P", child).stdout.split(), child]:
                run("kill", "-KILL", each)
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@contextmanager
def ssh_server(
    address: str = "127.0.0.1",
    namespaces: Sequence[str] = (),
    variables: Mapping[str, str] | None = None,
) -> Iterator[SshServer]:
    """One that runs. Without any sshd the test is skipped."""
    directory = new_directory()
    sshd = find_sshd(directory)
    if sshd is None:
        shutil.rmtree(directory)
        pytest.skip("there is no openssh-server, and its package cannot be had")
    server = SshServer(directory, sshd, address, namespaces, variables)
    server.start()
    try:
        yield server
    finally:
        server.cut()
        shutil.rmtree(directory, ignore_errors=True)  # clients remove their sockets meanwhile
