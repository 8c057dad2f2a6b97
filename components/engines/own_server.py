"""What the engines behind this project's own server (``server/``) have in common."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from components.engines.engine import HOME, KEY, SERVICE, UID, USER, VOLUME, EngineContext
from components.environment import CUDA, HUB, LINKER, check_environment
from components.service import Sent, ServiceArgs, Unit
from components.templates import render, script
from engines import MODEL_ALIAS

#: Reads the server's own variables; it refuses those that it does not know.
READER = "settings:DEFAULTS"


@dataclass(frozen=True)
class OwnServer:
    """An engine of the server. ``name`` is the unit's, ``engine`` what ``STT_ENGINE`` calls it.

    ``fetch`` is the shell text that brings a model which is no directory of the operator's to
    ``$directory``. ``files`` are the hub's, as patterns.
    """

    name: str
    engine: str
    description: str
    #: Lock files by device.
    locks: dict[str, str]
    directory: str
    fetch: str
    languages: Sequence[str] = ()
    #: The engine's own program, the shell text that installs its directory, and what that needs.
    program: str = ""
    install: str = ""
    directories: Sequence[str] = ()
    sent: Sequence[Sent] = ()


def model_directory(context: EngineContext, suffix: str = "") -> str:
    """Where the model lies in the machine, on the volume."""
    model = context.model
    tail = f"-{context.digest(model.directory)}" if model.directory else suffix
    return f"{VOLUME}/stt/{model.slug}{tail}"


def from_hub(context: EngineContext, files: Sequence[str]) -> str:
    """Shell text that fetches the model's files from the model hub."""
    return render(
        "own_server/fetch_from_hub.sh.j2",
        user=USER,
        repository=context.model.repository,
        name=context.model.name,
        endpoint=context.settings.sources.models or "",
        files=files,
    )


def own_server(context: EngineContext, what: OwnServer) -> ServiceArgs:
    """How the server is installed and configured for an engine."""
    settings, model = context.settings, context.model
    server = f"/opt/incus-stt/server-{context.digest('server')}"
    lock = what.locks[context.device]
    venv = f"/opt/incus-stt/{what.name}-{context.digest(f'server/{lock}')}"
    sent = [Sent("server", "server", server), *what.sent]
    if model.directory:
        sent.append(Sent("model-files", model.directory, what.directory))
    variables = {
        "STT_ENGINE": what.engine,
        "STT_HOST": str(settings.host),
        "STT_PORT": str(settings.port),
        "STT_MODEL_DIR": what.directory,
        "STT_PROGRAM": what.program,
        "STT_MODEL_NAME": model.name,
        "STT_MODEL_ALIASES": json.dumps([MODEL_ALIAS]),
        "STT_DEVICE": context.device,
        "STT_COMPUTE_TYPE": context.compute_type,
        "STT_LANGUAGE": settings.language,
        "STT_LANGUAGES": json.dumps(sorted(what.languages)),
        "STT_KEEP_ALIVE": str(settings.keep_alive),
        "STT_API_KEY_FILE": KEY,
    }
    readers = dict.fromkeys(variables, READER)
    if what.engine == "whisper":
        variables["HF_HUB_OFFLINE"] = "1"
        readers["HF_HUB_OFFLINE"] = HUB
    if context.device == "cuda":
        # CTranslate2 and ONNX Runtime load CUDA's libraries by name, from NVIDIA's wheels.
        variables |= {"LD_LIBRARY_PATH": f"{venv}/lib/cuda", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        readers |= {"LD_LIBRARY_PATH": LINKER, "CUDA_DEVICE_ORDER": CUDA}
    # What makes a model load; a change of anything else needs no look at it.
    check = {
        "STT_ENGINE": what.engine,
        "STT_PROGRAM": what.program,
        "STT_MODEL_DIR": what.directory,
        "STT_MODEL_NAME": model.name,
        "STT_DEVICE": "cpu",
        "STT_COMPUTE_TYPE": context.check_type,
    }
    return ServiceArgs(
        name=SERVICE,
        unit=Unit(
            name=what.name,
            description=f"Speech to text: {what.description}",
            user=USER,
            type="notify",
            command=f"{venv}/bin/python {server}/stt_server.py",
            directory=HOME,
            writable=[HOME],
            start_seconds=600,
            low_port=settings.port < 1024,
            variables=variables,
        ),
        uid=UID,
        port=settings.port,
        host=str(settings.host),
        program=venv,
        sent=sent,
        install=script(
            "own_server/install.sh.j2",
            service=SERVICE,
            user=USER,
            uid=UID,
            home=HOME,
            name=what.name,
            venv=venv,
            lock=f"{server}/{lock}",
            more=what.install,
        ),
        directories=what.directories,
        models=script(
            "own_server/model.sh.j2",
            service=SERVICE,
            python=f"{venv}/bin/python",
            server=server,
            user=USER,
            name=model.name,
            directory=what.directory,
            fetch="" if model.directory else what.fetch,
            variables=list(check.items()),
        ),
        model_directory=what.directory,
        check_environment=check_environment(
            f"{venv}/bin/python", USER, what.description, readers, path=server
        ),
        health=render(
            "own_server/health.sh.j2",
            host=context.health_host,
            port=settings.port,
            model=model.name,
        ),
        evidence=render("own_server/evidence.sh.j2", host=context.health_host, port=settings.port),
        timeout=600,
    )
