"""A step: what one resource does in a machine, as data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from agent.kinds import Kind
from agent.specs import encode


@dataclass(frozen=True)
class Step:
    """A step of a machine.

    ``name`` is ``DOMAIN/MACHINE/ROLE/PART``, the name of its resource. ``needs`` are steps that
    come before it, by name, of any machine; ``after`` are such whose every run has it run again.
    ``follows`` are steps that only come before it in time: servers that change one by one.
    ``source`` is the local file or directory that an upload brings. ``if_needed``: it is left out
    of a machine where no other step needs it.
    """

    name: str
    spec: Kind
    needs: Sequence[str] = ()
    after: Sequence[str] = ()
    follows: Sequence[str] = ()
    source: str = ""
    if_needed: bool = False

    @property
    def machine(self) -> tuple[str, str]:
        """Domain and machine."""
        domain, machine, _ = self.name.split("/", 2)
        return domain, machine

    @property
    def part(self) -> str:
        """The name within the machine."""
        return self.name.split("/", 2)[2]

    @property
    def role(self) -> str:
        """The role that it belongs to."""
        return self.part.split("/")[0]

    def text(self) -> str:
        """Kind and spec as JSON, with tokens for secrets."""
        data = {"kind": type(self.spec).kind, "spec": encode(self.spec)}
        return json.dumps(data, ensure_ascii=False)
