"""HTTPS in front of Open WebUI: Caddy, for browsers give the microphone to secure pages alone."""

from __future__ import annotations

from pathlib import Path

import pulumi

from components.service import File, ServiceArgs, Unit
from components.templates import render, script
from components.webui.open_webui import VOLUME
from declaration.settings import Settings
from declaration.topology import MachinePlan
from declaration.urls import HTTPS

SERVICE = "webui_proxy"
USER, UID = "webui-proxy", 904
HOME = f"{VOLUME}/proxy"
ETC = f"/etc/incus-stt/{SERVICE}"
#: The root of Caddy's own CA; it is on the volume, so that browsers trust it for years.
ROOT_CERTIFICATE = f"{HOME}/pki/authorities/local/root.crt"
PACKAGES = ("ca-certificates", "caddy", "curl")


def names(settings: Settings, machine: MachinePlan) -> list[str]:
    """What browsers may call it: its address first."""
    return [str(machine.address), "localhost", "127.0.0.1", *settings.webui.names]


def proxy_args(settings: Settings, machine: MachinePlan) -> ServiceArgs:
    """The service."""
    webui = settings.webui
    files, secrets = [], []
    certificate, key = f"{ETC}/certificate.pem", f"{ETC}/key.pem"
    if webui.tls == "files":
        files.append(File(certificate, Path(webui.certificate).read_text(encoding="ascii")))
        private = Path(webui.certificateKey).read_text(encoding="ascii")
        secrets.append((key, pulumi.Output.secret(private), f"{USER}:{USER}"))
    files.append(
        File(
            f"{ETC}/Caddyfile",
            render(
                "webui_proxy/Caddyfile.j2",
                names=names(settings, machine),
                home=HOME,
                domain=machine.domain,
                certificate=certificate if webui.tls == "files" else "",
                key=key,
                port=webui.port,
            ),
        )
    )
    unit = Unit(
        name="webui-proxy",
        description="HTTPS for Open WebUI: Caddy",
        user=USER,
        command=f"/usr/bin/caddy run --config {ETC}/Caddyfile --adapter caddyfile",
        directory=HOME,
        writable=[HOME],
        low_port=True,
        variables={"HOME": HOME, "XDG_DATA_HOME": HOME, "XDG_CONFIG_HOME": HOME},
    )
    trust = "--insecure" if webui.tls == "files" else f"--cacert {ROOT_CERTIFICATE}"
    return ServiceArgs(
        name=SERVICE,
        unit=unit,
        uid=UID,
        port=HTTPS,
        packages=PACKAGES,
        install=script(
            "webui_proxy/install.sh.j2",
            service=SERVICE,
            user=USER,
            uid=UID,
            home=HOME,
            packages=PACKAGES,
        ),
        files=files,
        secrets=secrets,
        health=render("webui_proxy/health.sh.j2", address=str(machine.address), trust=trust),
        timeout=60,
    )
