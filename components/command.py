"""The one place that speaks to pulumi-command: a command line, with its desired state on stdin.

Of the package ``pulumi_command`` only the provider and its version are used. Its class
``local.Command`` tells Pulumi's engine the same (``tests/unit/test_command.py``), but makes sixteen
outputs of each command and looks at their types, which is a quarter of the program's own time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from typing import Any

import pulumi

from agent.difference import Difference, missing
from components.members import Placement
from components.state import State, Text
from declaration.connection import Connection
from host.client import shell
from host.read import Live

#: What runs a command on the machine of Pulumi.
LOCAL = ["/bin/sh", "-c"]
#: A Command's inputs.
_INPUTS = [
    *("create", "update", "delete", "stdin", "triggers", "interpreter", "environment"),
    *("logging", "addPreviousOutputInEnv"),
]
#: The variable of a Command's environment that tells what `up` restores.
DRIFT = "DRIFT"


def _same(name: str) -> str:
    return name


def joined(start: str, end: Text) -> Text:
    """Two texts as one; a plain one where both are known."""
    return start + end if isinstance(end, str) else end.apply(lambda known: start + known)


def _owner(stack: str) -> str:
    return f"{pulumi.get_project()}/{pulumi.get_stack()}/{stack}"


@dataclass
class Host:
    """The host as all Commands see it: how it is reached, how it is, what the state knows of it.

    ``live`` is None if a preview cannot read the host. ``kept_id`` is the Command that has the
    stack's own id: the first objects are registered after it, also where the id is known, for the
    state may say that they depend on it. ``adopt``: somebody else's objects
    are taken over. ``former_name`` gives a resource's name before a rename. ``compared``: the
    preview is set beside another one, and texts have the names of secrets, not their values.
    ``placement`` is where domains are in a cluster. ``waiting``: steps that try what is left as it
    is elsewhere. ``drift`` gathers what was found, by resource, for the report.
    """

    connection: Connection
    live: Live | None
    state: State
    kept_id: Command | None = None
    adopt: bool = False
    former_name: Callable[[str], str] = _same
    compared: bool = False
    placement: Placement = field(default_factory=Placement)
    waiting: Collection[str] = ()
    drift: dict[str, Sequence[Difference]] = field(default_factory=dict)
    now: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @property
    def stack(self) -> Text:
        """The stack's own id."""
        return self.state.stack or (self.kept_id.stdout if self.kept_id else "")

    @property
    def owner(self) -> Text:
        """What Incus objects of this stack name as their owner."""
        return joined(_owner(""), self.stack)

    @property
    def known_owner(self) -> str:
        """The same as far as the state has it: no object names it before the first run."""
        return _owner(self.state.stack)

    def outputs(self, name: str) -> Any:
        """The outputs of a resource in the state, also under its former name; None without it."""
        return self.state.outputs(name, self.former_name(name))

    def known(self, name: str) -> bool:
        """Whether the state has the resource under this name, made on this host.

        One that is renamed, or moves to another host, has not been made yet: it has no drift.
        Neither has one that is left as it is.
        """
        if self.is_left(name):
            return False
        found = self.state.outputs(name)
        where = str(self.connection)
        return found is not None and (found.get("triggers") or [where])[0] == where

    def is_left(self, name: str) -> bool:
        """Whether a resource is left as it is.

        The member of its domain is not online, or that of what it would try.
        """
        return name in self.waiting or name.partition("/")[0] in self.placement.left

    def skips(self, name: str) -> bool:
        """Whether it is left as it is, and the state has nothing of it."""
        return self.is_left(name) and self.outputs(name) is None

    def gone(self, name: str, what: str) -> list[Difference]:
        """The drift of a resource that the state has and the host has not."""
        return [missing(what)] if self.live is not None and self.known(name) else []


@cache
def _version() -> str:
    """The version of the provider, which is that of its Python package."""
    return metadata.version("pulumi-command")


class Command(pulumi.CustomResource):
    """A command line that is the same for every desired state, which is on ``stdin``.

    A change of ``identity`` replaces the object (the old one is deleted first, and what depends on
    it before that); a change of anything else runs ``create`` again. ``drift`` is where the host
    differs from what was applied: it goes into ``environment``, where the preview shows it, and
    `up` runs the command, which restores the desired state. ``late`` is drift that is known only
    while `up` runs: it counts if there was none before. What ``after`` holds is there too: the
    command runs again when it changes. Secrets are on ``stdin``, which never appears in an error.

    ``here`` runs it on the machine of Pulumi, whatever the connection. ``quiet`` keeps its output
    out of the log; ``secret_output`` keeps it out of the plain state too.
    """

    def __init__(
        self,
        name: str,
        host: Host,
        *,
        create: pulumi.Input[str],
        delete: pulumi.Input[str] | None = None,
        stdin: pulumi.Input[str] | None = None,
        identity: Sequence[pulumi.Input[str]] = (),
        drift: Sequence[Difference] = (),
        late: pulumi.Output[list[Difference]] | None = None,
        after: Mapping[str, pulumi.Input[str]] | None = None,
        here: bool = False,
        quiet: bool = False,
        secret_output: bool = False,
        opts: pulumi.ResourceOptions,
    ) -> None:
        if drift:
            host.drift[name] = drift
        former = host.former_name(name)
        environment: Any
        if drift or late is None:
            environment = _environment(name, host, drift, after or {})
        else:
            environment = late.apply(lambda found: _environment(name, host, found, after or {}))
        inputs: dict[str, Any] = {
            "create": create,
            "delete": delete,
            "stdin": stdin,
            "triggers": [str(host.connection), *identity],
            "interpreter": LOCAL if here else shell(host.connection),
            "environment": environment,
            "logging": "none" if quiet else None,
            "addPreviousOutputInEnv": False,
        }
        given = {key: value for key, value in inputs.items() if value is not None}
        opts = copy(opts)
        opts.version = _version()
        opts.delete_before_replace = True
        opts.replace_on_changes = ["triggers[*]"]
        opts.additional_secret_outputs = ["stdout", "stderr"] if secret_output else None
        opts.aliases = [pulumi.Alias(name=former)] if former != name else None
        if host.is_left(name):
            opts.ignore_changes = _INPUTS
        super().__init__("command:local:Command", name, {**given, "stdout": None}, opts)

    @property
    def stdout(self) -> pulumi.Output[str]:
        """What the command has printed."""
        found: pulumi.Output[str] = pulumi.get(self, "stdout")
        return found


def _environment(
    name: str,
    host: Host,
    drift: Sequence[Difference],
    after: Mapping[str, pulumi.Input[str]],
) -> dict[str, pulumi.Input[str]] | None:
    """The drift; if there is none, what the state has, so that nothing is done about it."""
    before = ((host.outputs(name) or {}).get("environment") or {}).get(DRIFT)
    text = "\n".join([*map(str, drift), f"@{host.now}"]) if drift else before
    return {**({DRIFT: text} if text else {}), **after} or None
