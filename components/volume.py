"""A storage volume: what must outlive the machine that uses it."""

from __future__ import annotations

import pulumi

from components.incus_object import MARK, VOLUME, IncusObject
from declaration.settings import Settings

DESIRED_VOLUME = {"description": "incus-stt", "config": dict(MARK)}


class Volume(pulumi.ComponentResource):
    """A custom storage volume in the domain's project; ``stt:keepModels`` lets it stay."""

    def __init__(
        self,
        domain: str,
        name: str,
        settings: Settings,
        project: IncusObject,
        opts: pulumi.ResourceOptions,
    ) -> None:
        super().__init__("stt:incus:Volume", f"{domain}/{name}", None, opts)
        self.object = IncusObject(
            f"{domain}/volume/{name}",
            VOLUME,
            [settings.pool, name],
            DESIRED_VOLUME,
            connection=settings.where,
            project=domain,
            within=[project],
            # The project's own delete says what stays, and how to remove it.
            delete=":" if settings.keepModels else None,
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({})
