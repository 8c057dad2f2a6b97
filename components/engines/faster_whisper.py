"""The light engine: this project's own server on faster-whisper, from packages of PyPI alone."""

from __future__ import annotations

import json

from components.engines.engine import HOME, KEY, SERVICE, UID, USER, VOLUME, EngineContext
from components.service import Sent, ServiceArgs, Unit
from components.templates import render, script
from declaration.engines import MODEL_ALIAS

#: Clients with a fixed model name send OpenAI's.
ALIASES = (MODEL_ALIAS,)


def faster_whisper(context: EngineContext) -> ServiceArgs:
    """How the light engine is installed and configured."""
    settings, model = context.settings, context.model
    server = f"/opt/incus-stt/server-{context.digest('server')}"
    lock = "requirements-cuda.txt" if context.device == "cuda" else "requirements.txt"
    venv = f"/opt/incus-stt/faster-whisper-{context.digest(f'server/{lock}')}"
    sent = [Sent("server", "server", server)]
    if model.directory:
        directory = f"{VOLUME}/stt/{model.slug}-{context.digest(model.directory)}"
        sent.append(Sent("model-files", model.directory, directory))
    else:
        directory = f"{VOLUME}/stt/{model.slug}"
    unit = Unit(
        name="faster-whisper",
        description="Speech to text: faster-whisper",
        user=USER,
        type="notify",
        command=f"{venv}/bin/python {server}/stt_server.py",
        directory=HOME,
        writable=[HOME],
        start_seconds=600,
        low_port=settings.port < 1024,
        variables={
            "STT_HOST": str(settings.host),
            "STT_PORT": str(settings.port),
            "STT_MODEL_DIR": directory,
            "STT_MODEL_NAME": model.name,
            "STT_MODEL_ALIASES": json.dumps(ALIASES),
            "STT_DEVICE": context.device,
            "STT_COMPUTE_TYPE": settings.quantization,
            "STT_LANGUAGE": settings.language,
            "STT_API_KEY_FILE": KEY,
            "HF_HUB_OFFLINE": "1",
            **(_cuda_environment(venv) if context.device == "cuda" else {}),
        },
    )
    return ServiceArgs(
        name=SERVICE,
        unit=unit,
        uid=UID,
        port=settings.port,
        host=str(settings.host),
        program=venv,
        sent=sent,
        install=script(
            "faster_whisper/install.sh.j2",
            service=SERVICE,
            user=USER,
            uid=UID,
            home=HOME,
            venv=venv,
            lock=f"{server}/{lock}",
        ),
        models=script(
            "faster_whisper/model.sh.j2",
            service=SERVICE,
            python=f"{venv}/bin/python",
            user=USER,
            repository=model.repository,
            name=model.name,
            directory=directory,
            compute_type=context.check_type,
            endpoint=settings.sources.models or "",
        ),
        model_directory=directory,
        health=render(
            "faster_whisper/health.sh.j2",
            host=context.health_host,
            port=settings.port,
            model=model.name,
        ),
        timeout=600,
    )


def _cuda_environment(venv: str) -> dict[str, str]:
    """CTranslate2 loads cuBLAS and cuDNN by name, from NVIDIA's wheels."""
    site = f"{venv}/lib/cuda"
    return {"LD_LIBRARY_PATH": site}
