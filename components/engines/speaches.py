"""The default engine: Speaches, from its tag and its own lock file.

What it reads, and what no version reads, was taken from its source (``speaches/config.py``).
"""

from __future__ import annotations

import json
from pathlib import Path

from components.engines.engine import (
    AUTHORIZATION,
    ETC,
    HOME,
    KEY_ENVIRONMENT,
    SERVICE,
    UID,
    USER,
    VOLUME,
    EngineContext,
)
from components.engines.faster_whisper import FILES
from components.environment import CUDA, LINKER, OWN, PYTHON, SYSTEM, check_environment
from components.environment import HUB as HUB_READER
from components.service import File, Sent, ServiceArgs, Unit
from components.templates import ROOT, render, script
from engines import MODEL_ALIAS

VERSION = "v0.9.0-rc.3"
COMMIT = "24f209c90218187747a9205f0b84bc06b42ce775"
HUB = f"{VOLUME}/huggingface/hub"
REPOSITORY = "https://github.com/speaches-ai/speaches"

#: CTranslate2 and onnxruntime load these by name; Speaches' lock has none (its image brings them).
CUDA_PACKAGES = (
    "nvidia-cublas-cu12==12.6.4.1",
    "nvidia-cuda-nvrtc-cu12==12.6.77",
    "nvidia-cuda-runtime-cu12==12.6.77",
    "nvidia-cudnn-cu12==9.5.1.17",
    "nvidia-cufft-cu12==11.3.0.4",
    "nvidia-curand-cu12==10.3.7.77",
)


#: Who reads each variable of the unit, which is checked in the machine before it is configured.
CONFIG = "speaches.config:Config"
READERS = {
    "HOME": SYSTEM,
    "UVICORN_HOST": CONFIG,
    "UVICORN_PORT": CONFIG,
    "STT_MODEL_TTL": CONFIG,
    "VAD_MODEL_TTL": CONFIG,
    "WHISPER__INFERENCE_DEVICE": CONFIG,
    "WHISPER__COMPUTE_TYPE": CONFIG,
    "LOG_LEVEL": CONFIG,
    "ENABLE_UI": CONFIG,
    "INCUS_STT_LANGUAGE": OWN,
    "HF_HUB_CACHE": HUB_READER,
    "HF_HUB_OFFLINE": HUB_READER,
    "HF_HUB_DISABLE_TELEMETRY": HUB_READER,
    "DO_NOT_TRACK": HUB_READER,
    "GRADIO_ANALYTICS_ENABLED": "text:gradio",
    "PYTHONDONTWRITEBYTECODE": PYTHON,
    "LD_LIBRARY_PATH": LINKER,
    "CUDA_DEVICE_ORDER": CUDA,
}


def hub_entry(repository: str) -> str:
    """Where Hugging Face's cache keeps a repository."""
    return f"{HUB}/models--{repository.replace('/', '--')}"


def speaches(context: EngineContext) -> ServiceArgs:
    """How Speaches is installed and configured."""
    settings, model = context.settings, context.model
    cuda = context.device == "cuda"
    checkout = f"/opt/incus-stt/speaches-{VERSION}-{context.device}"
    sent: list[Sent] = []
    source = _brought(context, "speaches", settings.sources.speaches or REPOSITORY, sent)
    python = _brought(context, "python", settings.sources.python or "", sent)
    if model.directory:
        digest = context.digest(model.directory)
        repository, directory = f"local/{model.slug}", f"{VOLUME}/stt/{model.slug}-{digest}"
        sent.append(Sent("model-files", model.directory, directory))
        fetch = script(
            "speaches/link_model.sh.j2",
            service=SERVICE,
            user=USER,
            entry=hub_entry(repository),
            repository=repository,
            directory=directory,
            name=model.name,
            python=f"{checkout}/.venv/bin/python",
            compute_type=context.check_type,
            revision=(digest * 4)[:40],
            readme=(ROOT / "templates" / "speaches" / "model_card.md").read_text(encoding="utf-8"),
        )
    else:
        repository = model.repository
        fetch = script(
            "speaches/fetch_model.sh.j2",
            service=SERVICE,
            python=f"{checkout}/.venv/bin/python",
            user=USER,
            hub=HUB,
            entry=hub_entry(repository),
            repository=repository,
            name=model.name,
            compute_type=context.check_type,
            endpoint=settings.sources.models or "",
            files=FILES,
        )
    libraries = {
        "LD_LIBRARY_PATH": f"{checkout}/.venv/lib/cuda",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }
    cuda_variables = libraries if cuda else {}
    unit = Unit(
        name="speaches",
        description="Speech to text: Speaches",
        user=USER,
        command=(f"{checkout}/.venv/bin/uvicorn --factory --app-dir {ETC} speaches_app:create_app"),
        directory=ETC,
        writable=[HOME, HUB],
        secret_environment=KEY_ENVIRONMENT,
        low_port=settings.port < 1024,
        variables={
            "HOME": HOME,
            "UVICORN_HOST": str(settings.host),
            "UVICORN_PORT": str(settings.port),
            "INCUS_STT_LANGUAGE": settings.language,
            "STT_MODEL_TTL": str(settings.keep_alive),
            # The detector of voice takes a CUDA context of its own.
            "VAD_MODEL_TTL": str(settings.keep_alive),
            "WHISPER__INFERENCE_DEVICE": context.device,
            "WHISPER__COMPUTE_TYPE": context.compute_type,
            "HF_HUB_CACHE": HUB,
            "HF_HUB_OFFLINE": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "LOG_LEVEL": "info",
            "ENABLE_UI": "false",
            "DO_NOT_TRACK": "1",
            "GRADIO_ANALYTICS_ENABLED": "False",
            "PYTHONDONTWRITEBYTECODE": "1",
            **cuda_variables,
        },
    )
    return ServiceArgs(
        name=SERVICE,
        unit=unit,
        uid=UID,
        port=settings.port,
        host=str(settings.host),
        program=checkout,
        sent=sent,
        install=script(
            "speaches/install.sh.j2",
            service=SERVICE,
            user=USER,
            uid=UID,
            home=HOME,
            hub=HUB,
            checkout=checkout,
            etc=ETC,
            source=source,
            version=VERSION,
            commit=COMMIT,
            python=python,
            cuda_packages=CUDA_PACKAGES if cuda else (),
        ),
        models=fetch,
        model_directory=hub_entry(repository),
        files=[
            # Read once, at start, from the working directory.
            File(
                f"{ETC}/model_aliases.json",
                json.dumps({model.name: repository, MODEL_ALIAS: repository}, indent=2) + "\n",
            ),
            File(
                f"{ETC}/speaches_app.py",
                (ROOT / "templates" / "speaches" / "speaches_app.py").read_text(encoding="utf-8"),
            ),
        ],
        health=render(
            "speaches/health.sh.j2",
            host=context.health_host,
            port=settings.port,
            repository=repository,
            authorization=AUTHORIZATION,
        ),
        check_environment=check_environment(
            f"{checkout}/.venv/bin/python",
            USER,
            f"Speaches {VERSION}",
            {name: READERS[name] for name in unit.variables},
        ),
        evidence=render("speaches/evidence.sh.j2"),
        timeout=600,
    )


def _brought(context: EngineContext, name: str, source: str, sent: list[Sent]) -> str:
    """Where the machine finds an artifact: a URL as it is, a local file after it was sent."""
    if not source or "://" in source or not Path(source).exists():
        return source
    destination = f"/opt/incus-stt/sources/{name}-{context.digest(source)}"
    sent.append(Sent(f"source-{name}", source, destination))
    return destination
