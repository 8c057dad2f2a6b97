"""A server leaves the turn of its gateway while it changes, until it has proven itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from agent.difference import Difference, compare
from agent.files import File, discard, write
from agent.http import HealthRequest, ask
from agent.machine import Machine, poll

#: While it is there, the STT server says that it is not ready (``stt_server.ready``).
DRAINING = "/run/incus-stt-draining"


@dataclass(frozen=True)
class Drain:
    """``url`` says with 503 how many requests there still are, once the server drains.

    A gateway has noticed after ``notice`` seconds. Requests that are still there after ``deadline``
    seconds are given to another server by the gateway, which has kept them.
    """

    url: str
    notice: int = 3
    deadline: int = 60

    @contextmanager
    def out_of_turn(self, machine: Machine, runs: bool) -> Iterator[None]:
        """The server gets no requests; where it ``runs``, those that it has are waited for."""
        began = time.monotonic()

        def idle() -> bool:
            if time.monotonic() - began < self.notice:
                return False
            said = ask(machine, HealthRequest(self.url)).json
            return not (isinstance(said, dict) and said.get("requests"))

        try:
            write(machine, File(DRAINING, ""))
            if runs:
                poll(idle, self.deadline, 0.2)
            yield
        finally:
            discard(machine, DRAINING)

    def check(self, machine: Machine) -> list[Difference]:
        """Whether it was left out of turn, by a run that was cut off."""
        found = "no" if machine.path(DRAINING).exists() else "yes"
        return compare("in the gateway's turn", "yes", found)
