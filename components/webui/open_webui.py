"""The service Open WebUI: how it is installed, wired and known to be healthy."""

from __future__ import annotations

import hashlib

import pulumi

from components.service import Sent, ServiceArgs, Unit
from components.templates import render, script, unit_value
from declaration.settings import Settings
from declaration.topology import MachinePlan, Topology
from declaration.urls import ollama_url, stt_url
from engines import MODEL_ALIAS
from stack.checks import STT_ROLE

VERSION = "0.12.4"
SERVICE = "open_webui"
USER, UID = "webui", 903
VOLUME = "/srv/webui"
HOME = f"{VOLUME}/open-webui"
SECRETS = f"/etc/incus-stt/{SERVICE}/secrets.env"
PACKAGES = ("ca-certificates", "curl")
#: Where its users are sent who speak although STT is off: the address stands in what they read.
OFF = "speech-to-text-is-switched-off"

#: Variables whose values are also in the database, by the database's key (``open_webui.config``).
DECLARED = {
    "AUDIO_STT_ENGINE": "audio.stt.engine",
    "AUDIO_STT_OPENAI_API_BASE_URL": "audio.stt.openai.api_base_url",
    "AUDIO_STT_OPENAI_API_KEY": "audio.stt.openai.api_key",
    "AUDIO_STT_MODEL": "audio.stt.model",
    "ENABLE_OLLAMA_API": "ollama.enable",
    "OLLAMA_BASE_URL": "ollama.base_urls",
    "ENABLE_SIGNUP": "ui.enable_signup",
}
#: What is said at the first start alone; then an administrator may choose otherwise.
FIRST = {
    "ENABLE_OPENAI_API": "false",
    "ENABLE_COMMUNITY_SHARING": "false",
    # Embeddings would need a model: documents go to the language model as they are.
    "RAG_EMBEDDING_ENGINE": "ollama",
    "BYPASS_EMBEDDING_AND_RETRIEVAL": "true",
    # Its tools go with every message, and a model that knows no tools answers with an error.
    "DEFAULT_MODEL_METADATA": '{"capabilities": {"builtin_tools": false}}',
}


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


def programs(digest: str) -> str:
    """Where this project's programs for Open WebUI lie in the machine."""
    return f"/opt/incus-stt/webui-{digest}"


def venv(lock_digest: str) -> str:
    """Where Open WebUI is installed."""
    return f"/opt/incus-stt/open-webui-{VERSION}-{lock_digest}"


def variables(settings: Settings, ollama: str, stt: str) -> dict[str, str]:
    """The environment, but for the secrets."""
    return {
        "HOME": HOME,
        "DATA_DIR": f"{HOME}/data",
        "STATIC_DIR": f"{HOME}/static",
        "ENABLE_OLLAMA_API": "true" if ollama else "false",
        "OLLAMA_BASE_URL": ollama,
        "AUDIO_STT_ENGINE": "openai",
        "AUDIO_STT_OPENAI_API_BASE_URL": stt or f"http://127.0.0.1:{settings.webui.port}/{OFF}",
        # Every engine answers to it: another model or engine leaves Open WebUI alone.
        "AUDIO_STT_MODEL": MODEL_ALIAS,
        "WHISPER_LANGUAGE": settings.language,
        # The STT service takes every format and length; made into MP3, a recording is heard worse.
        "BYPASS_PYDUB_PREPROCESSING": "true",
        "ENABLE_SIGNUP": "true" if settings.webui.signup else "false",
        "OFFLINE_MODE": "true",
        "HF_HUB_OFFLINE": "1",
        "ANONYMIZED_TELEMETRY": "false",
        "DO_NOT_TRACK": "true",
        "SCARF_NO_ANALYTICS": "true",
        **FIRST,
    }


def secret_environment(values: dict[str, pulumi.Input[str]]) -> pulumi.Output[str]:
    """An environment file of secrets, quoted as systemd reads it."""

    def text(known: dict[str, str]) -> str:
        return "".join(f"{name}={unit_value(value)}\n" for name, value in known.items())

    return pulumi.Output.all(**values).apply(text)


def open_webui_args(
    settings: Settings,
    topology: Topology,
    machine: MachinePlan,
    digests: tuple[str, str],
    secrets: pulumi.Input[str],
) -> ServiceArgs:
    """The service; ``digests`` are those of the directory ``webui`` and of its lock file.

    Behind the proxy it listens on the loopback alone, so that no password travels in the clear.
    """
    port = settings.webui.port
    host = "0.0.0.0" if settings.webui.tls == "none" else "127.0.0.1"  # noqa: S104  # published
    ours, program = programs(digests[0]), venv(digests[1])
    unit = Unit(
        name="open-webui",
        description="Open WebUI",
        user=USER,
        before=f"{program}/bin/python {ours}/declared.py {' '.join(DECLARED.values())}",
        command=f"{program}/bin/open-webui serve --host {host} --port {port}",
        directory=HOME,
        writable=[HOME],
        secret_environment=SECRETS,
        start_seconds=600,
        low_port=port < 1024,
        variables=variables(settings, *links(settings, topology, machine.domain)),
    )
    return ServiceArgs(
        name=SERVICE,
        unit=unit,
        uid=UID,
        port=port,
        host=host,
        program=program,
        packages=PACKAGES,
        sent=[Sent("programs", "webui", ours)],
        install=script(
            "open_webui/install.sh.j2",
            service=SERVICE,
            user=USER,
            uid=UID,
            home=HOME,
            packages=PACKAGES,
            venv=program,
            version=VERSION,
            lock=f"{ours}/requirements.txt",
        ),
        health=render("open_webui/health.sh.j2", port=port),
        timeout=600,
        secrets=[(SECRETS, secrets, "root:root")],
    )


def _as_webui(digests: tuple[str, str]) -> dict[str, str]:
    """What ``as_webui.sh.j2`` needs."""
    python = f"{venv(digests[1])}/bin/python"
    return {"user": USER, "home": HOME, "secrets": SECRETS, "python": python}


def administrator_script(
    settings: Settings, password: pulumi.Input[str], digests: tuple[str, str]
) -> pulumi.Output[str]:
    """The script that gives the declared administrator the declared password."""
    email = settings.webui.adminEmail

    def text(known: str) -> str:
        digest = hashlib.sha256(f"{email}\0{known}".encode()).hexdigest()[:12]
        body = script(
            "open_webui/administrator.sh.j2",
            service=SERVICE,
            programs=programs(digests[0]),
            email=email,
            **_as_webui(digests),
        )
        return f"# the account {digest}: another one runs this again\n{body}"

    return pulumi.Output.secret(pulumi.Output.from_input(password).apply(text))


def verify_script(
    settings: Settings, machine: MachinePlan, recording: str, hint: str, digests: tuple[str, str]
) -> str:
    """The script that signs in and, where there is STT, lets Open WebUI hear a recording."""
    return script(
        "open_webui/verify.sh.j2",
        service=SERVICE,
        programs=programs(digests[0]),
        port=settings.webui.port,
        recording=recording,
        machine=machine.name,
        hint=hint,
        **_as_webui(digests),
    )
