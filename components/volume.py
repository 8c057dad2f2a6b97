"""A storage volume: what must outlive the machine that uses it."""

from __future__ import annotations

import pulumi

from components.command import incus
from components.incus_object import MARK, VOLUME, IncusObject
from components.templates import render
from declaration.settings import Settings

DESIRED_VOLUME = {"description": "incus-stt", "config": dict(MARK)}


def fetch_volume(settings: Settings, name: str, former: str | None, project: str) -> str:
    """The script that brings a volume from the project's former name, or from another pool."""
    return render(
        "host/fetch_volume.sh.j2",
        incus=incus(settings.host_connection),
        pool=settings.pool,
        name=name,
        former=former or "",
        project=project,
    )


class Volume(pulumi.ComponentResource):
    """A custom storage volume in the domain's project; ``stt:keepModels`` lets it stay.

    ``former`` is the project's name before a rename.
    """

    def __init__(
        self,
        domain: str,
        name: str,
        settings: Settings,
        former: str | None,
        opts: pulumi.ResourceOptions,
    ) -> None:
        super().__init__("stt:incus:Volume", f"{domain}/{name}", None, opts)
        self.object = IncusObject(
            f"{domain}/volume/{name}",
            VOLUME,
            [settings.pool, name],
            DESIRED_VOLUME,
            connection=settings.host_connection,
            project=domain,
            # Its data moves with it when the domain gets another name, or another storage pool.
            prepare=fetch_volume(settings, name, former, domain),
            movable=True,
            delete=":" if settings.keepModels else None,
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({})
