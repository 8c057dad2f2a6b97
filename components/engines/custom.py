"""An engine of the operator's own: an install script and a systemd unit, named in the stack.

Settings reach it as variables in ``/etc/incus-stt/custom.env``; what it does with them shows in the
verification, which is the same for every engine.
"""

from __future__ import annotations

from pathlib import Path

from components.engines.engine import HOME, KEY, SERVICE, UID, USER, VOLUME, EngineContext
from components.service import Sent, ServiceArgs, Unit
from components.templates import render, script
from engines import MODEL_ALIAS


def custom(context: EngineContext) -> ServiceArgs:
    """How the operator's engine is installed and configured."""
    settings, own = context.settings, context.settings.custom
    sent: list[Sent] = []
    files = ""
    if own.files:
        files = f"/opt/incus-stt/custom-{context.digest(own.files)}"
        sent.append(Sent("engine-files", own.files, files))
    variables = {
        "STT_HOST": str(settings.host),
        "STT_PORT": str(settings.port),
        "STT_MODEL": context.model.name,
        "STT_MODEL_ALIAS": MODEL_ALIAS,
        "STT_DEVICE": context.device,
        "STT_COMPUTE_TYPE": context.compute_type,
        "STT_LANGUAGE": settings.language,
        "STT_KEEP_ALIVE": str(settings.keep_alive),
        "STT_API_KEY_FILE": KEY,
        "STT_FILES": files,
        "STT_MODELS": f"{VOLUME}/stt",
    }
    unit = Unit(
        name="custom",
        description="",
        user=USER,
        command="",
        directory=HOME,
        writable=[],
        variables=variables,
        text=Path(own.unit).read_text(encoding="utf-8"),
    )
    return ServiceArgs(
        name=SERVICE,
        unit=unit,
        uid=UID,
        port=settings.port,
        host=str(settings.host),
        sent=sent,
        install=script(
            "custom/install.sh.j2",
            service=SERVICE,
            user=USER,
            uid=UID,
            home=HOME,
            variables=list(variables.items()),
            path=own.install,
            install=Path(own.install).read_text(encoding="utf-8"),
        ),
        health=render(
            "custom/health.sh.j2", host=context.health_host, port=settings.port, path=own.health
        ),
        timeout=600,
    )
