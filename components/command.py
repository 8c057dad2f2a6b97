"""The one place that speaks to pulumi-command: a script on the machine where ``incus`` runs."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import pulumi
from pulumi_command import local

from declaration.settings import Connection

#: One connection for all commands, kept for a minute; never a question, so that nothing hangs.
SSH = (
    "ssh",
    *("-o", "BatchMode=yes"),
    *("-o", "ConnectTimeout=15"),
    *("-o", "ControlMaster=auto"),
    *("-o", "ControlPath=~/.ssh/incus-stt-%C"),
    *("-o", "ControlPersist=60"),
)


def interpreter(connection: Connection) -> list[str]:
    """What runs a script's text: a shell here, or ssh to the host."""
    if connection.kind == "ssh":
        return [*SSH, "--", connection.target]
    return ["/bin/sh", "-c"]


def incus(connection: Connection, project: str = "") -> str:
    """The ``incus`` client as a script calls it, with its remote and project."""
    remote = f"INCUS_REMOTE={shlex.quote(connection.target)} " if connection.kind == "incus" else ""
    within = f" --project {shlex.quote(project)}" if project else ""
    return f"{remote}incus{within}"


def on_host(connection: Connection, script: str) -> str:
    """A local shell's words that run a script where ``incus`` runs."""
    return shlex.join([*interpreter(connection), script])


class HostCommand(local.Command):
    """A script with its update and delete, run where ``incus`` runs.

    A change of ``identity`` replaces the object (the old one is deleted first, and what depends on
    it before that); a change of anything else runs ``update`` (without one: ``create``). Desired
    state and secrets go in on ``stdin``, which never appears in an error text.

    ``here`` runs the script on the machine of Pulumi, whatever the connection. ``quiet`` keeps the
    output out of the log; ``secret_output`` keeps it out of the plain state too.
    """

    def __init__(
        self,
        name: str,
        *,
        connection: Connection,
        create: pulumi.Input[str],
        update: pulumi.Input[str] | None = None,
        delete: str | None = None,
        stdin: pulumi.Input[str] | None = None,
        identity: Sequence[pulumi.Input[str]] = (),
        here: bool = False,
        quiet: bool = False,
        secret_output: bool = False,
        opts: pulumi.ResourceOptions,
    ) -> None:
        super().__init__(
            name,
            create=create,
            update=update,
            delete=delete,
            stdin=stdin,
            triggers=[str(connection), *identity],
            interpreter=["/bin/sh", "-c"] if here else interpreter(connection),
            logging=local.Logging.NONE if quiet else None,
            add_previous_output_in_env=False,
            opts=pulumi.ResourceOptions.merge(
                opts,
                pulumi.ResourceOptions(
                    delete_before_replace=True,
                    additional_secret_outputs=["stdout", "stderr"] if secret_output else None,
                ),
            ),
        )
