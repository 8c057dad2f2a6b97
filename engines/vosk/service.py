"""How Vosk is installed and configured: behind our own server, with models from Vosk's site."""

from __future__ import annotations

from pathlib import PurePosixPath

from agent.actions import Download, Unpack
from declaration.artifacts import Artifact, known_sums
from engines.own_server import OwnServer, model_directory, own_server
from engines.service import EngineContext, EngineService
from engines.vosk.models import MODELS

#: Where Vosk's makers publish their models, as ZIP files.
SITE = "https://alphacephei.com/vosk/models"


def artifact_name(model: str) -> str:
    """What ``artifacts.lock`` calls a model."""
    return f"pkg:generic/{model}"


#: The archives; their names have their versions.
ARTIFACTS = [
    Artifact(
        artifact_name(name),
        "",
        "Apache-2.0",
        f"{SITE}/{name}.zip",
        "SHA-256, where it is known here",
        patterns=[f"{name}.zip"],
    )
    for name in MODELS
]


def service(context: EngineContext) -> EngineService:
    """The steps and the service."""
    model = context.model
    source = (context.settings.sources.vosk or SITE).rstrip("/")
    directory = model_directory(context)
    url = f"{source}/{model.repository}.zip"
    archive = f"/var/cache/incus-stt/{PurePosixPath(directory).name}.zip"
    return own_server(
        context,
        OwnServer(
            name="vosk",
            engine="vosk",
            description="Vosk",
            locks={"cpu": "requirements-vosk.txt"},
            directory=directory,
            fetch=[
                Download(
                    url,
                    archive,
                    failure=f"stt:model {model.name} could not be downloaded from {url}. Check its "
                    "name and the machine's network, or set stt:sources.vosk to a mirror; then run "
                    "up again: the download continues where it stopped.",
                    sums=known_sums(artifact_name(model.repository)),
                ),
                Unpack(
                    archive,
                    directory,
                    single=True,
                    cleanup=True,
                    failure=f"stt:model {model.name}: its archive is damaged and was removed. Run "
                    "up again.",
                ),
            ],
            languages=sorted(model.known.languages) if model.known else (),
        ),
    )
