"""What the stack exports."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import Any

import pulumi

from components.domain import Domain
from components.roles.ollama_server import OllamaServer
from components.roles.open_webui import OpenWebui
from components.roles.stt_server import SttServer
from declaration.settings import Settings
from stack.declare import Declaration


def _webui(settings: Settings, webui: OpenWebui) -> dict[str, Any]:
    """How to get into Open WebUI, and what it heard."""
    found = {
        "webui_url": webui.url,
        "webui_admin_email": settings.webui.adminEmail,
        "webui_admin_password": webui.password,
        "webui_check": webui.check.apply(json.loads),
    }
    return found | ({"webui_ca": webui.certificate} if webui.certificate else {})


def curl_line(url: str, model: str) -> str:
    """A line to try the service with; the key comes from the environment."""
    return (
        'curl -H "Authorization: Bearer $STT_API_KEY" -F file=@recording.wav '
        f"--form-string model={shlex.quote(model)} {url}/audio/transcriptions"
    )


def export(declaration: Declaration, domains: Sequence[Domain]) -> None:
    """Export URLs, key, and what the verification heard, of the first machine of each role."""
    for name, value in outputs(declaration, domains).items():
        pulumi.export(name, value)


def outputs(declaration: Declaration, domains: Sequence[Domain]) -> dict[str, Any]:
    """The outputs by name."""
    found: dict[str, Any] = {}
    for domain in domains:
        stt = domain.roles.get("stt_server")
        if isinstance(stt, SttServer) and "stt_url" not in found:
            found |= {
                "stt_url": stt.url,
                "stt_health_url": stt.url.removesuffix("/v1") + "/health",
                "stt_model": declaration.model.name,
                "stt_quantization": declaration.compute_type,
                "stt_api_key": stt.api_key,
                "stt_check": stt.check.apply(json.loads),
                "stt_times": stt.times,
                "stt_curl": curl_line(stt.url, declaration.model.name),
            }
        webui = domain.roles.get("open_webui")
        if isinstance(webui, OpenWebui) and "webui_url" not in found:
            found |= _webui(declaration.settings, webui)
        ollama = domain.roles.get("ollama_server")
        if isinstance(ollama, OllamaServer):
            found.setdefault("ollama_url", ollama.url)
    return found
