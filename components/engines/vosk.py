"""Vosk behind this project's own server: small models, for CPUs alone."""

from __future__ import annotations

from components.engines.engine import USER, EngineContext
from components.engines.own_server import OwnServer, model_directory, own_server
from components.service import ServiceArgs
from components.templates import render

#: Where Vosk's makers publish their models, as ZIP files.
SITE = "https://alphacephei.com/vosk/models"


def vosk(context: EngineContext) -> ServiceArgs:
    """How Vosk is installed and configured."""
    model = context.model
    source = (context.settings.sources.vosk or SITE).rstrip("/")
    return own_server(
        context,
        OwnServer(
            name="vosk",
            engine="vosk",
            description="Vosk",
            locks={"cpu": "requirements-vosk.txt"},
            directory=model_directory(context),
            fetch=render(
                "own_server/fetch_zip.sh.j2",
                user=USER,
                url=f"{source}/{model.repository}.zip",
                name=model.name,
            ),
            languages=sorted(model.known.languages) if model.known else (),
        ),
    )
