"""Role ``base_system``: network, certificates, curl, uv."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pulumi

from components.machine_script import MachineScript
from components.roles.role import Role, role
from components.templates import script

#: Speaches' lock file wants uv ~= 0.8.14; its own image of v0.9.0-rc.3 brings this one.
UV_VERSION = "0.8.22"


@role("base_system")
class BaseSystem(Role):
    """What every other role builds on."""

    def build(self, needs: Sequence[pulumi.Resource]) -> None:
        """One script."""
        bundle = self.context.settings.caBundle
        self.ready = MachineScript(
            self.context.name("base_system/install"),
            self.context.instance,
            script(
                "base_system.sh.j2",
                uv_version=UV_VERSION,
                ca_bundle=Path(bundle).read_text(encoding="ascii") if bundle else "",
            ),
            needs=needs,
            opts=pulumi.ResourceOptions(parent=self),
        )
