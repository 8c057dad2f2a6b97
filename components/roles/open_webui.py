"""Role ``open_webui``: Open WebUI, wired to Ollama and to the STT service."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import pulumi

from components.facts import service_facts
from components.roles.ollama_server import ollama_url
from components.roles.role import Facts, Role, role
from components.roles.stt_server import stt_url
from components.service import Service, ServiceArgs, Unit
from components.templates import render, script
from declaration.declare import STT_ROLE
from declaration.settings import Settings
from declaration.topology import MachinePlan, Topology

VERSION = "0.12.4"
USER, UID = "webui", 903
VOLUME = "/srv/webui"
ETC = "/etc/incus-stt/open_webui"


def links(settings: Settings, topology: Topology, domain: str) -> tuple[str, str]:
    """The URLs of Ollama and of the STT service; empty where there is none."""
    webui = settings.webui
    ollama, stt = topology.having("ollama_server", domain), topology.having(STT_ROLE, domain)
    ollama_link = webui.ollama_url
    if ollama_link is None:
        ollama_link = ollama_url(settings, ollama) if ollama else ""
    stt_link = webui.stt_url
    if stt_link is None:
        stt_link = stt_url(settings, stt) if stt else ""
    return ollama_link, stt_link if settings.enabled else ""


def open_webui_args(
    settings: Settings,
    topology: Topology,
    machine: MachinePlan,
    session_key: pulumi.Input[str],
    stt_key: pulumi.Input[str],
) -> ServiceArgs:
    """The service Open WebUI.

    The database keeps what the environment said at the first start and prefers it ever after;
    ``ENABLE_PERSISTENT_CONFIG=false`` lets the environment win, so that a changed setting works.
    """
    ollama, stt = links(settings, topology, machine.domain)
    venv = f"/opt/incus-stt/open-webui-{VERSION}"
    audio = {
        "AUDIO_STT_ENGINE": "openai",
        "AUDIO_STT_OPENAI_API_BASE_URL": stt,
        "AUDIO_STT_MODEL": settings.model,
        **({"WHISPER_LANGUAGE": settings.language} if settings.language else {}),
    }
    unit = Unit(
        name="open-webui",
        description="Open WebUI",
        user=USER,
        command=f"{venv}/bin/open-webui serve --host 0.0.0.0 --port {settings.webui.port}",
        directory=VOLUME,
        writable=[VOLUME],
        secret_environment=f"{ETC}/secrets.env",
        start_seconds=600,
        low_port=settings.webui.port < 1024,
        variables={
            "HOME": VOLUME,
            "DATA_DIR": f"{VOLUME}/data",
            "ENABLE_PERSISTENT_CONFIG": "false",
            "ENABLE_OLLAMA_API": "true" if ollama else "false",
            "OLLAMA_BASE_URL": ollama,
            "ENABLE_OPENAI_API": "false",
            "OFFLINE_MODE": "true",
            "HF_HUB_OFFLINE": "1",
            "ANONYMIZED_TELEMETRY": "false",
            "DO_NOT_TRACK": "true",
            "SCARF_NO_ANALYTICS": "true",
            **(audio if stt else {}),
        },
    )
    return ServiceArgs(
        name="open_webui",
        unit=unit,
        uid=UID,
        port=settings.webui.port,
        program=venv,
        install=script(
            "open_webui/install.sh.j2",
            service="open_webui",
            user=USER,
            uid=UID,
            home=VOLUME,
            venv=venv,
            version=VERSION,
        ),
        health=render("open_webui/health.sh.j2", port=settings.webui.port),
        timeout=600,
        secrets=[
            (
                f"{ETC}/secrets.env",
                pulumi.Output.concat(
                    *("WEBUI_SECRET_KEY=", session_key),
                    *("\nAUDIO_STT_OPENAI_API_KEY=", stt_key, "\n"),
                ),
                "root:root",
            )
        ],
    )


@role("open_webui")
class OpenWebui(Role):
    """Open WebUI, whose microphone button and chats use the domain's own services."""

    volumes: ClassVar = {"webui": VOLUME}

    @classmethod
    def facts(cls, settings: Settings, topology: Topology, plan: MachinePlan) -> Facts:
        """The service."""
        args = open_webui_args(settings, topology, plan, "", "")
        return service_facts(plan.resource("open_webui"), args)

    def build(self, needs: Sequence[pulumi.Resource]) -> None:
        """Session key and STT key, then the service."""
        context, settings = self.context, self.context.settings
        self.url = f"http://{context.plan.address}:{settings.webui.port}"
        session_key = context.shared.secret("open_webui/session-key")
        args = open_webui_args(
            settings, context.topology, context.plan, session_key, context.shared.stt_key
        )
        service = Service(
            context.name("open_webui"),
            context.instance,
            args,
            needs,
            pulumi.ResourceOptions(parent=self),
        )
        self.ready = service.configure
