"""Role ``base_system``: network, certificates, curl, uv."""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import pulumi

from components.facts import Fact, packages
from components.machine_script import MachineScript
from components.roles.role import Facts, Role, role
from components.templates import script
from declaration.settings import Settings
from declaration.topology import MachinePlan
from stack.declare import Declaration

#: Speaches' lock file wants uv ~= 0.8.14; its own image of v0.9.0-rc.3 brings this one.
UV_VERSION = "0.8.22"
UV = "/opt/incus-stt/uv/bin/uv"


PACKAGES = ("ca-certificates", "curl", "python3", "python3-venv", "xz-utils", "zstd")
CERTIFICATES = "/usr/local/share/ca-certificates"


def certificates(settings: Settings) -> str:
    """What ``stt:caBundle`` holds."""
    return Path(settings.caBundle).read_text(encoding="ascii") if settings.caBundle else ""


def base_system_script(settings: Settings) -> str:
    """The script that makes a machine fit for the other roles."""
    return script(
        "base_system.sh.j2",
        service="base_system",
        uv_version=UV_VERSION,
        ca_bundle=certificates(settings),
        certificates=CERTIFICATES,
        packages=PACKAGES,
    )


@role("base_system")
class BaseSystem(Role):
    """What every other role builds on."""

    @classmethod
    def facts(cls, declaration: Declaration, plan: MachinePlan) -> Facts:
        """Packages, uv, certificates."""
        blocks = re.findall(
            r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n",
            certificates(declaration.settings),
            re.DOTALL,
        )
        ours = f"find {CERTIFICATES} -name 'stt-caBundle-*.crt' | sort -V | xargs -r cat"
        return {
            plan.resource("base_system/install"): [
                packages(PACKAGES),
                Fact("uv", f"{UV} --version | cut -d' ' -f2", UV_VERSION),
                Fact("certificates of stt:caBundle", f"{ours} | sha256sum", _sum("".join(blocks))),
            ]
        }

    def build(self, needs: Sequence[pulumi.Resource]) -> None:
        """One script."""
        self.ready = MachineScript(
            self.context.name("base_system/install"),
            self.context.instance,
            base_system_script(self.context.settings),
            needs=needs,
            opts=pulumi.ResourceOptions(parent=self),
        )


def _sum(text: str) -> str:
    """As sha256sum prints it."""
    return f"{sha256(text.encode()).hexdigest()}  -"
