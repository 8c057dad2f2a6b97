"""A storage volume: what must outlive the machine that uses it."""

from __future__ import annotations

import shlex

import pulumi

from components.command import incus
from components.incus_object import MARK, VOLUME, IncusObject
from components.templates import render
from declaration.settings import Settings

DESIRED_VOLUME = {"description": "incus-stt", "config": dict(MARK)}


def fetch_volume(settings: Settings, name: str, former: str, project: str) -> str:
    """The script that brings a volume from the project's former name."""
    return render(
        "host/fetch_volume.sh.j2",
        incus=incus(settings.where),
        volume=f"{settings.pool}/{name}",
        words=shlex.join([settings.pool, name]),
        former=former,
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
        project: IncusObject,
        former: str | None,
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
            prepare=fetch_volume(settings, name, former, domain) if former else "",
            # Its data moves with it when the domain gets another name.
            movable=True,
            # The project's own delete says what stays, and how to remove it.
            delete=":" if settings.keepModels else None,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[project]),
        )
        self.register_outputs({})
