"""Role ``base_system``: certificates, names, the packages that other roles need, uv for them."""

from __future__ import annotations

from pathlib import Path

from agent.files import File
from agent.kinds.certificates import Certificates
from agent.kinds.files import Files
from agent.kinds.packages import Packages
from agent.kinds.program import Program
from agent.kinds.user import User
from agent.pip import PipInstall
from declaration.step import Step
from declaration.venv import (
    BUILDER,
    BUILDER_HOME,
    BUILDER_UID,
    UV_ARTIFACT,
    UV_DIRECTORY,
    UV_VERSION,
    uv_lock,
)
from roles.role import Context, Role

PACKAGES = ["ca-certificates", "curl", "python3", "python3-venv", "xz-utils", "zstd"]


#: A bare name (`gpu-server`) is looked up in the domain's own DNS. Without a search domain
#: systemd-resolved asks the neighbours for it instead, who answer now and then.
_NAMES = File(
    "/etc/systemd/resolved.conf.d/60-incus-stt.conf",
    "[Resolve]\nDomains=incus\nLLMNR=no\nMulticastDNS=no\n",
)
#: Ends once it knows its server again, which systemd-networkd tells it after a restart.
_RESTART = """systemctl is-active --quiet systemd-resolved || exit 0
systemctl restart systemd-resolved
timeout 20 sh -c 'until resolvectl dns | grep -q "eth0.*: *[0-9]"; do sleep 0.1; done'
"""


def steps(context: Context) -> list[Step]:
    """Certificates first: apt-get may need them."""
    found: list[Step] = []
    if bundle := context.settings.caBundle:
        pem = Path(bundle).read_text(encoding="utf-8")
        found.append(Step(context.part("base_system/certificates"), Certificates(pem)))
    # Before what downloads: while it takes effect, nothing is looked up.
    found.append(Step(context.part("base_system/names"), Files([_NAMES], [["sh", "-c", _RESTART]])))
    needs = [step.name for step in found]
    packages = Step(context.part("base_system/packages"), Packages(PACKAGES), needs)
    uv = Program(
        UV_DIRECTORY,
        f"uv {UV_VERSION}",
        [
            PipInstall(
                UV_DIRECTORY,
                uv_lock(),
                "pip could not install uv. Check that the machine reaches the Python "
                "package index, then run up again.",
            ),
        ],
        requires="bin/uv",
    )
    builder = Step(
        context.part("base_system/builder"),
        User(BUILDER, BUILDER_UID, BUILDER_HOME),
        if_needed=True,
    )
    part = context.part("base_system/uv")
    needs = [packages.name, builder.name]
    return [*found, packages, builder, Step(part, uv, needs, if_needed=True)]


ROLE = Role(
    "base_system",
    "certificates, names of the domain, packages that other roles need, and uv where one needs it",
    steps,
    requires=lambda _: (),
    artifacts=[UV_ARTIFACT],
)
