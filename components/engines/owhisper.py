"""OWhisper's last server, built from its source, behind this project's own (docs/decisions/0008).

Its makers removed it from fastrepl/hyprnote in December 2025 (e89fd2aa6); this is the commit
before.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from components.engines.engine import USER, EngineContext
from components.engines.own_server import OwnServer, model_directory, own_server
from components.service import Sent, ServiceArgs
from components.templates import render

REPOSITORY = "https://github.com/fastrepl/hyprnote"
COMMIT = "c5d1acfb422df1826ba1279be804dde0dfafe141"
RUST, RUSTUP = "1.92.0", "1.28.2"
#: whisper.cpp's own models on the hub.
MODELS = "ggerganov/whisper.cpp"
HUB = "https://huggingface.co"


def owhisper(context: EngineContext) -> ServiceArgs:
    """How OWhisper is installed and configured."""
    settings, model = context.settings, context.model
    source = settings.sources.owhisper or ""
    sent: list[Sent] = []
    tag, archive = COMMIT[:12], ""
    if source and Path(source).is_file():
        tag = context.digest(source)
        archive = f"/opt/incus-stt/sources/owhisper-{tag}"
        sent.append(Sent("source-owhisper", source, archive))
    elif source:
        tag = hashlib.sha256(source.encode()).hexdigest()[:12]
    directory = f"/opt/incus-stt/program-owhisper-{tag}"
    endpoint = (settings.sources.models or HUB).rstrip("/")
    return own_server(
        context,
        OwnServer(
            name="owhisper",
            engine="owhisper",
            description="OWhisper",
            locks={"cpu": "requirements-owhisper.txt"},
            directory=model_directory(context),
            fetch=render(
                "own_server/fetch_ggml.sh.j2",
                user=USER,
                url=f"{endpoint}/{MODELS}/resolve/main/{model.repository}",
                name=model.name,
            ),
            languages=sorted(model.known.languages) if model.known else (),
            program=f"{directory}/bin/owhisper-server",
            install=render(
                "own_server/owhisper.sh.j2",
                directory=directory,
                archive=archive,
                source=source,
                repository=REPOSITORY,
                commit=COMMIT,
                rust=RUST,
                rustup=RUSTUP,
            ),
            directories=[directory],
            sent=sent,
        ),
    )
