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
    """Where a browser gives Open WebUI the microphone: the loopback, or HTTPS.

    Without either it is the machine's own address, which serves for chats alone.
    """
    webui = settings.webui
    _, _, published = webui.publish.rpartition(":")
    if webui.tls == "none":
        return (
            f"http://{f'localhost:{published}' if published else f'{machine.address}:{webui.port}'}"
        )
    if webui.names:
        port = f":{published}" if published and int(published) != HTTPS else ""
        return f"https://{webui.names[0]}{port}"
    return f"https://{machine.address}"
