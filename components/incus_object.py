"""One class for every Incus object: create or take over, edit, delete, from YAML on stdin."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import yaml

from components.command import HostCommand, incus
from components.templates import render
from declaration.settings import Connection

#: Written into every object that this program makes, so that it knows its own.
MARK = {"user.managed-by": "incus-stt"}


@dataclass(frozen=True)
class Noun:
    """How the client calls an object: ``show`` reads it, ``edit`` replaces it; all but create.

    ``fills`` matches the configuration keys that Incus fills in itself.
    """

    name: str
    create: str
    show: str
    edit: str
    delete: str
    fills: str


def _noun(name: str, words: str, fills: str) -> Noun:
    return Noun(name, f"{words} create", f"{words} show", f"{words} edit", f"{words} delete", fills)


PROJECT = _noun("project", "project", "^(volatile|features)[.]")
NETWORK = _noun("network", "network", "^volatile[.]")
PROFILE = _noun("profile", "profile", "^volatile[.]")
#: A storage pool gives a new volume defaults of its own (size, block.filesystem …).
VOLUME = _noun("volume", "storage volume", ".")


def to_yaml(desired: Mapping[str, Any]) -> str:
    """The desired state as the client reads it: sorted, so that a diff shows changes alone."""
    return yaml.safe_dump(dict(desired), sort_keys=True, allow_unicode=True, width=1000)


def object_scripts(
    noun: Noun, where: Sequence[str], connection: Connection, project: str
) -> tuple[str, str]:
    """The scripts that create (or take over and edit) and that delete an object.

    ``where`` is the name, after the storage pool where the object lies in one.
    """
    values = {"incus": incus(connection, project), "noun": noun, "name": shlex.join(where)}
    return render("host/object.sh.j2", **values), render("host/delete_object.sh.j2", **values)


class IncusObject(HostCommand):
    """An Incus project, network, profile or storage volume."""

    def __init__(
        self,
        resource: str,
        noun: Noun,
        where: Sequence[str],
        desired: Mapping[str, Any],
        *,
        connection: Connection,
        project: str,
        within: Sequence[HostCommand] = (),
        prepare: str = "",
        movable: bool = False,
        fixed: Sequence[str] = (),
        delete: str | None = None,
        opts: pulumi.ResourceOptions,
    ) -> None:
        """``within``: objects without which this one is not; their replacement replaces it.

        ``prepare`` is a script before the usual one; a ``movable`` object can change its place.
        ``fixed`` is what else an edit cannot change.
        """
        create, usual_delete = object_scripts(noun, where, connection, project)
        identity = [noun.name, *([where[-1]] if movable else [project, *where])]
        super().__init__(
            resource,
            connection=connection,
            create=prepare + create,
            delete=delete or usual_delete,
            stdin=to_yaml(desired),
            identity=[*identity, *fixed, *(owner.id for owner in within)],
            opts=opts,
        )
