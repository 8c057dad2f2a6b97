"""A machine: an Incus container, running, with its fixed address."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import pulumi

from components.command import HostCommand, incus
from components.incus_object import MARK, to_yaml
from components.templates import render
from declaration.settings import Connection
from declaration.topology import MachinePlan

#: Configuration that Incus fills in itself.
FILLS = "^(volatile|image)[.]"

#: Where a local image stands in for one of a server that cannot be reached (bootstrap/image.sh).
STAND_IN = "incus-stt/"


def desired_instance(
    plan: MachinePlan,
    volumes: Mapping[str, str],
    devices: Mapping[str, Mapping[str, str]],
    bridge: str,
    pool: str,
) -> dict[str, Any]:
    """The container; ``volumes`` maps each storage volume to where it is mounted."""
    disks = {
        name: {"type": "disk", "pool": pool, "source": name, "path": path}
        for name, path in volumes.items()
    }
    return {
        "description": plan.machine.description,
        "profiles": plan.machine.profiles,
        "config": {"boot.autostart": "true", **plan.machine.config, **MARK},
        "devices": {
            "eth0": {
                "type": "nic",
                "network": bridge,
                "name": "eth0",
                "ipv4.address": str(plan.address),
            },
            **disks,
            **devices,
            **plan.machine.devices,
        },
    }


def stand_in(image: str) -> str:
    """The local alias for a server's image: ``images:debian/12`` has ``…/images/debian/12``."""
    return STAND_IN + image.replace(":", "/", 1)


def instance_scripts(
    name: str, address: str, image: str, connection: Connection, project: str
) -> tuple[str, str]:
    """The scripts that create (or take over), edit and start a container, and that delete it."""
    values = {
        "incus": incus(connection, project),
        "client": incus(connection),
        "name": shlex.quote(name),
        "image": shlex.quote(image),
        "stand_in": shlex.quote(stand_in(image)),
        "fills": FILLS,
        "address": address,
    }
    return render("host/instance.sh.j2", **values), render("host/delete_instance.sh.j2", **values)


class Instance(pulumi.ComponentResource):
    """A container of a domain. ``ready`` is there once it has booted.

    ``within``: what it is in; a replacement of any of these replaces it.
    """

    def __init__(
        self,
        plan: MachinePlan,
        image: str,
        desired: Mapping[str, Any],
        within: Sequence[HostCommand],
        needs: Sequence[pulumi.Resource],
        connection: Connection,
        opts: pulumi.ResourceOptions,
    ) -> None:
        super().__init__("stt:incus:Instance", f"{plan.domain}/{plan.name}", None, opts)
        self.plan = plan
        self.connection = connection
        create, delete = instance_scripts(
            plan.name, str(plan.address), image, connection, plan.domain
        )
        self.ready = HostCommand(
            plan.resource("instance"),
            connection=connection,
            create=create,
            delete=delete,
            stdin=to_yaml(desired),
            identity=["instance", plan.domain, plan.name, image, *(each.id for each in within)],
            opts=pulumi.ResourceOptions(parent=self, depends_on=[*within, *needs]),
        )
        self.register_outputs({})

    def run(self) -> str:
        """Shell words that run the script on their stdin inside this machine."""
        client = incus(self.connection, self.plan.domain)
        return f"{client} exec {shlex.quote(self.plan.name)} -- sh -eu"
