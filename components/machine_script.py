"""A script inside a machine, and files brought into it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import pulumi

from components.command import HostCommand, incus, on_host
from components.instance import Instance
from components.templates import render
from declaration.source_files import names


class MachineScript(HostCommand):
    """``script`` (see ``templates.script``) run in a machine by ``sh -eu``, again when it changes.

    ``delete`` is the script that undoes it; it is not run where the machine goes too. ``after`` is
    a line of another resource's output: the script runs again when it changes.
    """

    def __init__(
        self,
        name: str,
        instance: Instance,
        script: pulumi.Input[str],
        *,
        delete: str | None = None,
        after: pulumi.Output[str] | None = None,
        needs: Sequence[pulumi.Resource] = (),
        quiet: bool = False,
        opts: pulumi.ResourceOptions,
    ) -> None:
        plan = instance.plan
        client = incus(instance.connection, plan.domain)
        word = shlex.quote(plan.name)
        undo = delete and render("host/undo.sh.j2", incus=client, name=word, script=delete)
        super().__init__(
            name,
            connection=instance.connection,
            create=pulumi.Output.concat(instance.run(), " # ", after) if after else instance.run(),
            delete=undo,
            stdin=script,
            identity=[instance.ready.id],
            quiet=quiet,
            secret_output=quiet,
            opts=pulumi.ResourceOptions.merge(
                opts,
                pulumi.ResourceOptions(
                    depends_on=[instance.ready, *needs], deleted_with=instance.ready
                ),
            ),
        )


class Upload(HostCommand):
    """A file or directory of Pulumi's machine, brought into a machine as ``destination``.

    The destination's name should hold the content's digest: what is there is not sent again.
    """

    def __init__(
        self,
        name: str,
        instance: Instance,
        source: str,
        destination: str,
        *,
        needs: Sequence[pulumi.Resource] = (),
        opts: pulumi.ResourceOptions,
    ) -> None:
        super().__init__(
            name,
            connection=instance.connection,
            create=upload_script(instance, source, destination),
            stdin="".join(f"{file}\n" for file in names(Path(source))),
            identity=[instance.ready.id],
            here=True,
            opts=pulumi.ResourceOptions.merge(
                opts,
                pulumi.ResourceOptions(
                    depends_on=[instance.ready, *needs], deleted_with=instance.ready
                ),
            ),
        )


def upload_script(instance: Instance, source: str, destination: str) -> str:
    """A local script: tar here, untar there, renamed into place when all has arrived.

    It reads the names of the files from its standard input, one a line.
    """
    path = Path(source)
    client = incus(instance.connection, instance.plan.domain)
    unpack = render("host/unpack.sh.j2")
    words = [unpack, "sh", destination, "directory" if path.is_dir() else "file"]
    receive = f"{client} exec {shlex.quote(instance.plan.name)} -- sh -c {shlex.join(words)}"
    return render(
        "host/upload.sh.j2",
        directory=source if path.is_dir() else str(path.parent),
        receive=on_host(instance.connection, receive),
    )
