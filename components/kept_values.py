"""Values that are made once and kept in Pulumi's state: the stack's id, and secrets."""

from __future__ import annotations

from dataclasses import replace

import pulumi

from components.command import Command, Host
from components.state import STACK_ID, State
from declaration.connection import Connection
from declaration.secret import KEPT_ID, KEPT_SECRET

#: Any update would run the command again and make another value: only a replacement does.
_KEPT = ["create", "interpreter", "logging"]
#: Another connection must not replace them: they are of the stack, and of no host.
_HERE = Connection("local")


def stack_id(protect: bool) -> Command:
    """The Command that prints the id of this stack."""
    return Command(
        STACK_ID,
        Host(_HERE, None, State()),
        create="cat /proc/sys/kernel/random/uuid",
        identity=[KEPT_ID],
        here=True,
        quiet=True,
        opts=pulumi.ResourceOptions(protect=protect, ignore_changes=_KEPT),
    )


class GeneratedSecret(Command):
    """256 random bits: ``stdout``, a secret. Made where Pulumi runs; there is nothing to delete."""

    def __init__(self, name: str, host: Host, protect: bool) -> None:
        super().__init__(
            name,
            replace(host, connection=_HERE),
            create="head -c 32 /dev/urandom | base64 -w 0 | tr '+/' '-_' | tr -d '='",
            identity=[KEPT_SECRET],
            here=True,
            quiet=True,
            secret_output=True,
            opts=pulumi.ResourceOptions(protect=protect, ignore_changes=_KEPT),
        )


class Secrets:
    """The stack's secrets by name: what the operator gave, else one that is made once and kept."""

    def __init__(self, given: dict[str, str], host: Host, protect: bool) -> None:
        self._values = {
            name: pulumi.Output.secret(value or GeneratedSecret(name, host, protect).stdout)
            for name, value in given.items()
        }

    def values(self, names: list[str]) -> pulumi.Output[dict[str, str]]:
        """The values of some, by name; a secret."""
        return pulumi.Output.secret(
            pulumi.Output.all(**{name: self._values[name] for name in names})
        )
