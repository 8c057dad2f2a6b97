"""HTTPS in front of Open WebUI: Caddy, since browsers give the microphone to secure pages only."""

from __future__ import annotations

from agent.files import File
from agent.http import HealthRequest
from agent.kinds.packages import Packages
from agent.kinds.service import Service
from agent.kinds.user import User
from declaration.artifacts import Artifact
from declaration.secret import secret
from declaration.step import Step
from declaration.unit import hardened_unit
from declaration.urls import HTTPS, webui_hosts
from roles.certificate import own_certificate, show_certificate
from roles.open_webui import service
from roles.role import Context

NAME = "webui_proxy"
USER, UID = "webui-proxy", 904
HOME = f"{service.VOLUME}/proxy"
ETC = f"/etc/incus-stt/{NAME}"
ENVIRONMENT = "/etc/incus-stt/webui-proxy.env"
CERTIFICATE, KEY = f"{ETC}/chain.pem", f"{ETC}/key.pem"
#: The root of Caddy's own CA; it is on the volume, so that browsers trust it for years.
ROOT_CERTIFICATE = f"{HOME}/pki/authorities/local/root.crt"
#: The secret with the operator's own key.
PRIVATE_KEY = "webui_proxy/certificate-key"
_DEADLINE = 60
ARTIFACT = Artifact(
    "pkg:deb/caddy",
    "",
    "Apache-2.0",
    "the distribution of the machine",
    "by apt, from the distribution's signed lists; its version is the distribution's",
)


def caddyfile(context: Context) -> str:
    """Caddy's configuration."""
    hosts = webui_hosts(context.settings, context.machine)
    own = context.settings.webui.tls == "files"
    domain = f"incus-stt {context.machine.domain}"
    addresses = ", ".join(f"https://{name}" for name in hosts)
    lines = [
        "# Made by incus-stt; `pulumi up` writes it again.",
        "{",
        "\tadmin off",
        # Clients that ask for an address name nobody.
        f"\tdefault_sni {hosts[0]}",
        "\tskip_install_trust",
        f"\tstorage file_system {HOME}",
        "\tpki {",
        "\t\tca local {",
        f'\t\t\tname "{domain}"',
        f'\t\t\troot_cn "{domain} root"',
        f'\t\t\tintermediate_cn "{domain} intermediate"',
        "\t\t}",
        "\t}",
        "}",
        f"{addresses} {{",
        f"\ttls {CERTIFICATE} {KEY}" if own else "\ttls internal",
        f"\treverse_proxy 127.0.0.1:{context.settings.webui.port}",
        "}",
    ]
    return "".join(f"{line}\n" for line in lines)


def _service(context: Context) -> Service:
    webui = context.settings.webui
    own = webui.tls == "files"
    return Service(
        unit="webui-proxy",
        environment_file=ENVIRONMENT,
        variables={"HOME": HOME, "XDG_DATA_HOME": HOME, "XDG_CONFIG_HOME": HOME},
        sections=hardened_unit(
            description="HTTPS for Open WebUI: Caddy",
            user=USER,
            command=f"/usr/bin/caddy run --config {ETC}/Caddyfile --adapter caddyfile",
            directory=HOME,
            writable=[HOME],
            environment_files=[ENVIRONMENT],
            port=HTTPS,
            computes=False,
        ),
        files=[File(f"{ETC}/Caddyfile", caddyfile(context))],
        port=HTTPS,
        health=[
            HealthRequest(
                f"https://{context.machine.address}/health",
                certificate="" if own else ROOT_CERTIFICATE,
            )
        ],
        deadline=_DEADLINE,
    )


def steps(context: Context) -> list[Step]:
    """Caddy, the operator's own certificate if there is one, the service."""
    user = Step(context.part(f"{NAME}/user"), User(USER, UID, HOME))
    packages = Step(
        context.part(f"{NAME}/packages"),
        # The package starts a server of its own, which is not wanted.
        Packages(["ca-certificates", "caddy", "curl"], mask=["caddy.service"]),
        context.base("packages"),
    )
    found = [user, packages]
    behind = context.part(f"{service.NAME}/service")
    if context.settings.webui.tls == "files":
        files = own_certificate(
            context.settings.webui.certificate,
            secret(PRIVATE_KEY),
            (CERTIFICATE, KEY),
            f"{USER}:{USER}",
            f"{NAME}/service",
        )
        # With another one Caddy restarts, and is well once Open WebUI answers behind it.
        needs = [user.name, behind]
        found.append(Step(context.part(f"{NAME}/secrets"), files, needs))
    needs = [*(step.name for step in found), behind]
    proxy = Step(context.part(f"{NAME}/service"), _service(context), needs)
    found.append(proxy)
    if context.settings.webui.tls == "internal":
        found += _certificate(context, proxy)
    return found


def _certificate(context: Context, proxy: Step) -> list[Step]:
    """What has to be trusted, for the outputs."""
    show = show_certificate(ROOT_CERTIFICATE, "webui-proxy")
    return [Step(context.part(f"{NAME}/certificate"), show, [], [proxy.name])]
