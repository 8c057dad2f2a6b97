"""The way out of a domain whose bridge is closed: open while somebody fetches, then closed again.

Whoever fetches holds a lock that others may hold too. Each first starts a process that outlives it,
and then opens the bridge, unless it is open: once nobody has held the lock for a moment, that
process closes the bridge. It does so whatever ended who fetched, for the kernel gives up a
process's locks.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from agent.machine import flock, poll
from declaration.connection import Connection
from host.client import Client, HostError, shell, user_cache
from host.conntrack import cut, elsewhere
from host.hold import held
from host.objects import NETWORK, Place

#: The ACL that is there while the bridge is open: its name ends so, after the bridge's.
SUFFIX = "-install"
#: What the bridge's DNS is told while it is closed: it asks nobody, so no name carries data out.
CLOSED_DNS = "no-resolv"
#: Seconds without anybody who fetches after which it is closed; the next step begins sooner.
_LINGER = 1.0
#: The locks: of those who fetch, of the process that closes the bridge, of the one that is to do so
#: after it, and of whoever edits the bridge or its ACL: Incus 6.0 fails, or mixes up the rules, if
#: both happen at once.
_FETCHING, _CLOSING, _NEXT, _EDITING = "fetching", "closing", "next", "editing"
#: Seconds between two looks at a lock that somebody else holds.
_INTERVAL = 0.02
#: Seconds for which closing is tried, from the first time that Incus does not do it.
_CLOSING_DEADLINE = 600
#: Seconds to wait for whoever edits the bridge: a few calls of Incus.
_EDITING_DEADLINE = 600.0
#: Seconds to wait for whoever fetches: a day. What fetches longer hangs: it is killed, and the
#: bridge closed.
_FETCHING_DEADLINE = 86_400.0
#: Seconds to wait for who only asks whether there is something to fetch.
_ASKING_DEADLINE = 600.0


@dataclass(frozen=True)
class Egress:
    """The way out of a bridge."""

    connection: Connection
    bridge: str

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Have it open meanwhile.

        Raises:
            HostError: the bridge is not there, Incus refuses to open it, or another process has
                not closed it in time.
        """
        with self._lock() as file:
            # Nobody closes it from here on; two who open it do the same.
            late = _EDITING_DEADLINE
            self._wait(lambda: flock(file.fileno(), shared=True), "is still closing", late)
            opened = self.is_open()
            # Before it opens, or Incus may have opened it and nobody be there to close it. Also
            # where it is open: who opened it may have lost the process that closes it.
            self._close_later()
            if not opened:
                self._set(opened=True)
            yield

    def is_open(self) -> bool:
        """Whether it is open now.

        Raises:
            HostError: the bridge is not there, or Incus does not answer.
        """
        return f"{self.bridge}{SUFFIX}" in self._acls()

    def is_left_open(self) -> bool:
        """Whether it is open, and nobody fetches: whoever edits it as a whole closes it.

        Raises:
            HostError: Incus does not answer.
        """
        opened = f"{self.bridge}{SUFFIX}" in _acls_of(self._found() or {})
        return opened and not self.is_used()

    def is_used(self) -> bool:
        """Whether somebody fetches, or has just fetched: then it is about to be closed."""
        if not self._file(_FETCHING).exists():  # who only looks writes nothing
            return False
        with self._lock(_CLOSING) as closing, self._lock() as file:
            return not (flock(closing.fileno()) and flock(file.fileno()))

    @contextlib.contextmanager
    def editing(self) -> Iterator[None]:
        """Be the only one that edits the bridge or its ACLs.

        Raises:
            HostError: another process has not edited them in time.
        """
        with self._lock(_EDITING) as file:
            self._wait(lambda: flock(file.fileno()), "is still editing", _EDITING_DEADLINE)
            yield

    @contextlib.contextmanager
    def rewriting(self) -> Iterator[None]:
        """Be the only one that edits the bridge, whose rules are in force meanwhile.

        An edit of an ACL needs no such hold: Incus exchanges its rules at once.

        Raises:
            HostError: another process has not edited it in time.
        """
        with self.editing(), held(self.connection, self.bridge):
            yield

    def close_later(self) -> None:
        """Close it once nobody has fetched for a moment.

        One process does so and one waits to be the next: a third one has nothing to do. Who opens
        the bridge holds its lock when it starts one, and the one that waits has yet to look at it.

        Whoever fetches for more than ``_FETCHING_DEADLINE`` s is cut off.

        Raises:
            HostError: Incus did not let it be closed within ``_CLOSING_DEADLINE`` s, or another
                process that is to close it has not done so.
        """
        with self._lock(_CLOSING) as closing:
            with self._lock(_NEXT) as following:
                if not flock(following.fileno()):
                    return
                late = _FETCHING_DEADLINE + 2 * _CLOSING_DEADLINE  # when the other one has given up
                self._wait(lambda: flock(closing.fileno()), "is still waiting to close", late, 0.1)
            self._close_in_time()

    def _close_in_time(self) -> None:
        end = 0.0
        while True:
            ended = self._all_have_ended()
            time.sleep(_LINGER)
            try:
                if self._close(forced=not ended, again=bool(end)):
                    return
                end = 0.0  # somebody fetches
            except HostError:
                end = end or time.monotonic() + _CLOSING_DEADLINE
                if time.monotonic() > end:
                    raise

    def _all_have_ended(self) -> bool:
        with self._lock() as file:
            return poll(lambda: flock(file.fileno()), _FETCHING_DEADLINE)

    def _close(self, *, forced: bool = False, again: bool = False) -> bool:
        """Close it; false if somebody fetches again, unless ``forced``.

        ``again``: it was tried before, and may be closed with its connections still open.
        """
        with self._lock() as file:
            if not flock(file.fileno()) and not forced:
                return False
            if self.is_open() or again:
                self._set(opened=False)
                self.cut()
            return True

    def _wait(
        self, locked: Callable[[], bool], does: str, deadline: float, interval: float = _INTERVAL
    ) -> None:
        """Wait for another process of this user.

        Raises:
            HostError: it ``does`` so after ``deadline`` s.
        """
        if not poll(locked, deadline, interval):
            raise HostError(
                f"Another process on this machine {does} the bridge {self.bridge}, after "
                f"{deadline:.0f} s. See what it does (ps aux), end it if it hangs, then run up "
                "again."
            )

    @contextlib.contextmanager
    def _lock(self, what: str = _FETCHING) -> Iterator[TextIO]:
        place = self._file(what)
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with place.open("w") as file:
            yield file

    def _file(self, what: str) -> Path:
        where = hashlib.sha256(f"{self.connection} {self.bridge}".encode()).hexdigest()[:16]
        return user_cache() / "egress" / f"{where}.{what}"

    def _found(self) -> dict[str, str] | None:
        found = Client(self.connection).get(Place(self.bridge, "default").path(NETWORK))
        return None if found is None else dict(found["config"])

    def _config(self) -> dict[str, str]:
        if (found := self._found()) is None:
            raise HostError(f"The bridge {self.bridge} is not there. Run up again.")
        return found

    def _acls(self) -> list[str]:
        return _acls_of(self._config())

    def _set(self, *, opened: bool) -> None:
        install = f"{self.bridge}{SUFFIX}"
        with self.rewriting():
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

    def cut(self) -> None:
        """End the connections to other networks: an ACL lets through what is open.

        What was not done is done by the next one that edits the bridge or its ACL.

        Raises:
            HostError: it was not done in time, or Incus does not answer.
        """
        mark = self._file("to-cut")
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
        if found := self._found():
            subnet = found["ipv4.address"].rpartition(".")[0] + ".0/24"
            cut(self.connection, subnet, elsewhere(subnet))
        mark.unlink(missing_ok=True)

    def is_to_be_cut(self) -> bool:
        """Whether connections were to be cut, and were not."""
        return self._file("to-cut").exists()


def _acls_of(config: Mapping[str, str]) -> list[str]:
    return config.get("security.acls", "").split(",")


def run_open(egress: Egress, command: str, unless: str = "") -> int:
    """Run a command where ``incus`` runs, with the way out open; its exit status.

    It has this process's stdin, stdout and stderr. Where ``unless`` succeeds the way out stays as
    it is.

    Raises:
        HostError: one of the two has not ended in time, or the bridge cannot be opened.
    """
    run = shell(egress.connection)
    silent = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    with contextlib.ExitStack() as stack:
        if not unless or _run([*run, unless], _ASKING_DEADLINE, egress.bridge, **silent):
            stack.enter_context(egress.open())
        return _run([*run, command], _FETCHING_DEADLINE, egress.bridge)


def _run(argv: list[str], deadline: float, bridge: str, **options: Any) -> int:
    """Run a program to its end; its exit status.

    It stays in this process's group, by which Pulumi ends both.

    Raises:
        HostError: it has not ended in ``deadline`` s; then it is killed, with what it has started.
    """
    with subprocess.Popen(argv, **options) as process:  # noqa: S603  # the operator's own host
        try:
            return process.wait(deadline)
        except subprocess.TimeoutExpired:
            for each in (process.pid, *_descendants(process.pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(each, signal.SIGKILL)
            raise HostError(
                f"A command in a machine of the bridge {bridge} did not end in {deadline:.0f} s "
                "and was killed. See what it waits for (ps aux in that machine), end that or "
                "restart the machine, then run up again."
            ) from None
        finally:
            process.kill()  # does nothing where it has ended


def _descendants(process: int) -> list[int]:
    """What a process has started, and what that has."""
    found: list[int] = []
    for file in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # it has just ended
            found += map(int, file.read_text().split())
    return found + [each for child in found for each in _descendants(child)]
