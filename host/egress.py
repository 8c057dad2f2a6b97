"""The way out of a domain whose bridge is closed: open while somebody fetches, then closed again.

Who fetches holds a lock that others may hold too. The first one opens the bridge, and starts a
process that outlives it: once nobody has held the lock for a moment, that closes the bridge. It
does so whatever ended who fetched, for the kernel gives up a process's locks.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from agent.machine import flock
from declaration.connection import Connection
from host.client import Client, HostError, shell, user_cache
from host.conntrack import cut, elsewhere, kept
from host.objects import NETWORK, Place

#: The ACL that is there while the bridge is open: its name ends so, after the bridge's.
SUFFIX = "-install"
#: What the bridge's DNS is told while it is closed: it asks nobody, so no name carries data out.
CLOSED_DNS = "no-resolv"
#: Seconds without anybody who fetches after which it is closed; the next step begins sooner.
_LINGER = 1.0
#: The locks: of those who fetch, of the process that closes the bridge, and of who edits the bridge
#: or its ACL: Incus 6.0 fails, or mixes up the rules, where both happen at once.
_FETCHING, _CLOSING, _EDITING = "fetching", "closing", "editing"
#: Seconds for which it is tried to close it, where Incus does not answer.
_CLOSING_DEADLINE = 600


@dataclass(frozen=True)
class Egress:
    """The way out of a bridge."""

    connection: Connection
    bridge: str

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Have it open meanwhile.

        Raises:
            HostError: the bridge is not there, or Incus refuses to open it.
        """
        with self._lock() as file:
            # Nobody closes it from here on; two who open it do the same.
            fcntl.flock(file, fcntl.LOCK_SH)
            if not self.is_open():
                self._set(opened=True)
                self._close_later()
            yield

    def is_open(self) -> bool:
        """Whether it is open now.

        Raises:
            HostError: the bridge is not there, or Incus does not answer.
        """
        return f"{self.bridge}{SUFFIX}" in self._acls()

    def is_used(self) -> bool:
        """Whether somebody fetches, or has just fetched: then it is about to be closed."""
        if not self._file(_FETCHING).exists():  # who only looks writes nothing
            return False
        with self._lock(_CLOSING) as closing, self._lock() as file:
            return not (flock(closing.fileno()) and flock(file.fileno()))

    @contextlib.contextmanager
    def editing(self) -> Iterator[None]:
        """Be the only one that edits the bridge or its ACLs."""
        with self._lock(_EDITING) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            with kept(self.connection, self.bridge):
                yield

    def close_later(self) -> None:
        """Close it once nobody has fetched for a moment.

        Raises:
            HostError: Incus has not let it be closed within ``_CLOSING_DEADLINE`` s.
        """
        end = time.monotonic() + _CLOSING_DEADLINE
        with self._lock(_CLOSING) as closing:
            fcntl.flock(closing, fcntl.LOCK_EX)
            while True:
                with self._lock() as file:
                    fcntl.flock(file, fcntl.LOCK_EX)  # all have ended
                time.sleep(_LINGER)
                try:
                    if self._close():
                        return
                except HostError:
                    if time.monotonic() > end:
                        raise

    def _close(self) -> bool:
        """Close it; false where somebody fetches again."""
        with self._lock() as file:
            if not flock(file.fileno()):
                return False
            if self.is_open():
                self._set(opened=False)
                self._cut()
            return True

    @contextlib.contextmanager
    def _lock(self, what: str = _FETCHING) -> Iterator[TextIO]:
        place = self._file(what)
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with place.open("w") as file:
            yield file

    def _file(self, what: str) -> Path:
        where = hashlib.sha256(f"{self.connection} {self.bridge}".encode()).hexdigest()[:16]
        return user_cache() / "egress" / f"{where}.{what}"

    def _config(self) -> dict[str, str]:
        found = Client(self.connection).get(Place(self.bridge, "default").path(NETWORK))
        if found is None:
            raise HostError(f"The bridge {self.bridge} is not there. Run up again.")
        return dict(found["config"])

    def _acls(self) -> list[str]:
        return self._config().get("security.acls", "").split(",")

    def _set(self, *, opened: bool) -> None:
        install = f"{self.bridge}{SUFFIX}"
        with self.editing():
            acls = [name for name in self._acls() if name != install]
            acls += [install] if opened else []
            dns = "" if opened else CLOSED_DNS
            values = (f"security.acls={','.join(acls)}", f"raw.dnsmasq={dns}")
            Client(self.connection).call("network", "set", self.bridge, *values, project="default")

    def _close_later(self) -> None:
        words = ["--connection", str(self.connection), "egress", "close-later", self.bridge]
        subprocess.Popen(  # noqa: S603  # this program
            [sys.executable, "-m", "host", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _cut(self) -> None:
        # They were opened meanwhile, and an ACL lets through what is open.
        subnet = self._config()["ipv4.address"].rpartition(".")[0] + ".0/24"
        cut(self.connection, subnet, elsewhere(subnet))


def run_open(egress: Egress, command: str, unless: str = "") -> int:
    """Run a command where ``incus`` runs, with the way out open; its exit status.

    It has this process's stdin, stdout and stderr. Where ``unless`` succeeds the way out stays as
    it is.
    """
    run = shell(egress.connection)
    with contextlib.ExitStack() as stack:
        if not unless or _run([*run, unless], stdin=subprocess.DEVNULL, capture_output=True):
            stack.enter_context(egress.open())
        return _run([*run, command])


def _run(argv: list[str], **options: Any) -> int:
    return subprocess.run(argv, check=False, **options).returncode  # noqa: S603  # the operator's own host
