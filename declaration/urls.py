"""Where the services answer."""

from __future__ import annotations

from declaration.settings import Settings
from declaration.topology import MachinePlan

HTTPS = 443


def stt_url(settings: Settings, machine: MachinePlan) -> str:
    """The base URL for OpenAI clients."""
    host = str(settings.host)
    return f"http://{machine.address if host == '0.0.0.0' else host}:{settings.port}/v1"  # noqa: S104  # compared, not bound


def ollama_url(settings: Settings, machine: MachinePlan) -> str:
    """Where Ollama answers."""
    return f"http://{machine.address}:{settings.ollama.port}"


def webui_url(settings: Settings, machine: MachinePlan) -> str:
    """Where a browser reaches Open WebUI.

    Browsers give the microphone to the loopback and to HTTPS; published on another address without
    TLS, or not published at all, it serves for chats only.
    """
    webui = settings.webui
    address, _, published = webui.publish.rpartition(":")
    if webui.tls == "none":
        if not published:
            return f"http://{machine.address}:{webui.port}"
        # On every address, or on the loopback only: the host itself reaches it as localhost.
        local = address in ("0.0.0.0", "127.0.0.1")  # noqa: S104  # compared, not bound
        return f"http://{'localhost' if local else address}:{published}"
    if webui.names:
        port = f":{published}" if published and int(published) != HTTPS else ""
        return f"https://{webui.names[0]}{port}"
    return f"https://{machine.address}"
