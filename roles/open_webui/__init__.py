"""Role ``open_webui``: Open WebUI, wired to Ollama and the STT service, with HTTPS if wanted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from declaration.notice import Notice
from declaration.problems import show
from declaration.secret import secret
from declaration.settings import Settings
from declaration.step import Step
from declaration.tls import private_key
from declaration.urls import HTTPS, webui_url
from roles.open_webui import proxy, service
from roles.role import Context, Result, Role
from roles.stt_server.access import api_key
from stack.role_rules import Bound


def steps(context: Context) -> list[Step]:
    """The service with its secrets and its administrator, the proxy, the verification."""
    found = service.steps(context)
    last = [context.part(f"{service.NAME}/service")]
    if context.settings.webui.tls != "none":
        found += proxy.steps(context)
        last.append(context.part(f"{proxy.NAME}/service"))
    return [*found, *service.verification(context, last)]


def _devices(context: Context) -> Mapping[str, Mapping[str, str]]:
    """What brings it to an address of the host (``stt:webui.publish``)."""
    webui = context.settings.webui
    if not webui.publish:
        return {}
    port = webui.port if webui.tls == "none" else HTTPS
    listen, connect = f"tcp:{webui.publish}", f"tcp:127.0.0.1:{port}"
    return {"publish": {"type": "proxy", "listen": listen, "connect": connect}}


def _outputs(context: Context) -> dict[str, Any]:
    found = {
        "webui_url": webui_url(context.settings, context.machine),
        "webui_admin_email": context.settings.webui.adminEmail,
        "webui_admin_password": secret(service.ADMIN_PASSWORD),
        "webui_check": Result(context.part(f"{service.NAME}/verify")),
    }
    if context.settings.webui.tls == "internal":
        certificate = Result(context.part(f"{proxy.NAME}/certificate"), "certificate")
        found["webui_ca"] = certificate
    return found


def _secrets(settings: Settings) -> dict[str, str]:
    found = {
        service.SESSION_KEY: "",
        service.ADMIN_PASSWORD: settings.adminPassword,
        **api_key(settings),
    }
    if settings.webui.sttKey:
        found[service.STT_KEY] = settings.webui.sttKey
    if settings.webui.tls == "files":
        found[proxy.PRIVATE_KEY] = private_key(settings.webui.certificateKey)
    return found


def _listens(settings: Settings) -> dict[str, int]:
    proxy = {} if settings.webui.tls == "none" else {"stt:webui.tls": HTTPS}
    return {"stt:webui.port": settings.webui.port, **proxy}


def _bound(settings: Settings) -> dict[str, Bound]:
    tls = settings.webui.tls
    if tls == "none":
        return {}
    reason, remedy = f"stt:webui.tls is {show(tls)}", f"use port {HTTPS}, which speaks HTTPS"
    return {"stt:webui.port": Bound(service.listen_host(settings), reason, remedy)}


def _warnings(context: Context) -> list[str]:
    webui = context.settings.webui
    everywhere = webui.publish.startswith("0.0.0.0:")
    if not everywhere or webui.tls != "none" or webui.origins:
        return []
    return [
        f"{context.machine.name}: Open WebUI is published on every address of the host "
        f"({webui.publish}), and answers only pages that it knows: localhost. Name the addresses "
        "that browsers use (stt:webui.origins), or set stt:webui.tls."
    ]


ROLE = Role(
    service.NAME,
    "Open WebUI, with the domain's own services for its microphone and chats",
    steps,
    volumes={"webui": service.VOLUME},
    data=["webui"],
    devices=_devices,
    secrets=_secrets,
    outputs=_outputs,
    shared=False,
    listens=_listens,
    bound=_bound,
    artifacts=[proxy.ARTIFACT],
    warnings=_warnings,
    notices={
        f"{service.NAME}/service": Notice(
            "Open WebUI restarts: its page is down for about ten seconds"
        ),
        f"{proxy.NAME}/service": Notice("the HTTPS proxy restarts: its connections are cut off"),
    },
    kept={
        service.SESSION_KEY: "everybody signs in to Open WebUI again",
        service.ADMIN_PASSWORD: "Open WebUI's administrator gets another password",
    },
)
