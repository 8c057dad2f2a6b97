"""A storage volume: what must outlive the machine that uses it."""

from __future__ import annotations

import pulumi

from components.incus_object import MARK, VOLUME, IncusObject
from declaration.settings import Connection

DESIRED_VOLUME = {"description": "incus-stt", "config": dict(MARK)}


class Volume(pulumi.ComponentResource):
    """A custom storage volume in the domain's project."""

    def __init__(
        self,
        domain: str,
        name: str,
        pool: str,
        project: IncusObject,
        connection: Connection,
        opts: pulumi.ResourceOptions,
    ) -> None:
        super().__init__("stt:incus:Volume", f"{domain}/{name}", None, opts)
        self.object = IncusObject(
            f"{domain}/volume/{name}",
            VOLUME,
            [pool, name],
            DESIRED_VOLUME,
            connection=connection,
            project=domain,
            within=[project],
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({})
