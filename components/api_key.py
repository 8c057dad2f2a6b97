"""A secret that is made once and kept in Pulumi's state."""

from __future__ import annotations

import pulumi

from components.command import HostCommand
from declaration.settings import Connection


class ApiKey(HostCommand):
    """A random key of 256 bits: ``stdout``, a secret. Made where Pulumi runs; nothing to delete."""

    def __init__(self, name: str, protect: bool) -> None:
        super().__init__(
            name,
            connection=Connection("local"),
            create="head -c 32 /dev/urandom | base64 -w 0 | tr '+/' '-_' | tr -d '='",
            identity=["key-1"],
            here=True,
            quiet=True,
            secret_output=True,
            # Any update would run the script again and make another key: only a replacement does.
            opts=pulumi.ResourceOptions(
                protect=protect, ignore_changes=["create", "interpreter", "logging"]
            ),
        )
