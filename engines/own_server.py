"""What the engines behind this project's own server (``stt_server/``) have in common."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agent.actions import Action, Run
from agent.http import HealthRequest
from agent.kinds.model import Model
from agent.kinds.program import Program
from agent.kinds.service import Service
from agent.kinds.transcription import Evidence
from declaration.artifacts import download_sizes
from declaration.settings import Settings
from declaration.source_files import digest, own_digest
from declaration.step import Step
from declaration.unit import hardened_unit
from declaration.venv import venv_actions
from engines.ctranslate2 import OPENMP
from engines.hub import at_revision, verify
from engines.service import HOME, MODELS, SOCKET, USER, EngineContext, EngineService
from engines.speech_model import Source

PACKAGE = "stt_server"
#: Seconds that the server gets to load its model.
_DEADLINE = 600


@dataclass(frozen=True)
class OwnServer:
    """An engine of the server: ``name`` is the unit's, ``engine`` what ``STT_ENGINE`` calls it.

    ``locks`` are lock files by device. ``fetch`` brings a model that is not a directory of the
    operator's to ``directory``. ``program`` is the engine's own, where ``steps`` install one.
    """

    name: str
    engine: str
    description: str
    locks: dict[str, str]
    directory: str
    fetch: Sequence[Action]
    languages: Sequence[str] = ()
    program: str = ""
    steps: Sequence[Step] = field(default_factory=list)


def model_directory(context: EngineContext, suffix: str = "") -> str:
    """Where the model is in the machine, on the volume."""
    model = context.model
    tail = f"-{digest(Path(model.directory))}" if model.directory else suffix
    return f"{MODELS}/{model.slug}{tail}"


def server_directory() -> str:
    """Where the server's package is in the machine."""
    return f"/opt/incus-stt/stt-server-{own_digest(PACKAGE)}"


def venv_directory(context: EngineContext, name: str, locks: dict[str, str]) -> str:
    """Where the engine's Python is in the machine."""
    lock = f"{PACKAGE}/locks/{locks[context.device]}"
    return f"/opt/incus-stt/{name}-{own_digest(lock)}"


def fetch_from_hub(
    context: EngineContext, python: str, directory: str, patterns: Sequence[str]
) -> list[Action]:
    """The model's files from the model hub, compared with ``artifacts.lock``."""
    fetch = run_fetch(context, python, directory, patterns)
    return [fetch, *verify(context.model.repository, directory)]


def run_fetch(context: EngineContext, python: str, directory: str, patterns: Sequence[str]) -> Run:
    """What fetches the files; an empty directory means the hub's own cache."""
    endpoint = context.settings.sources.models or ""
    return Run(
        [
            *(python, f"{server_directory()}/{PACKAGE}/fetch_model.py"),
            *(at_revision(context.model.repository), directory, context.model.name, *patterns),
        ],
        failure=f"stt:model {context.model.name} could not be fetched.",
        user=USER,
        environment={
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            **({"HF_ENDPOINT": endpoint} if endpoint else {}),
        },
    )


def own_server(context: EngineContext, what: OwnServer) -> EngineService:
    """The steps and the service of an engine of this project's own server."""
    settings, model = context.settings, context.model
    server, venv = server_directory(), venv_directory(context, what.name, what.locks)
    upload = context.upload("server", PACKAGE, server, subdirectory=PACKAGE)
    program = _program_step(context, what, upload, venv)
    steps = [upload, program, *what.steps]
    model_needs = [program.name, context.user_step, *(step.name for step in what.steps)]
    if model.directory:
        model_files = context.upload("model-files", model.directory, what.directory, model=True)
        steps.append(model_files)
        model_needs.append(model_files.name)
    check = _check_step(context, what, server, venv, model_needs)
    steps.append(check)
    service = Service(
        unit=what.name,
        environment_file=f"/etc/incus-stt/{what.name}.env",
        variables=_variables(context, what, server, venv),
        sections=hardened_unit(
            description=f"Speech to text: {what.description}",
            user=USER,
            type_="notify",
            command=f"{venv}/bin/python -m {PACKAGE}",
            directory=HOME,
            writable=[HOME],
            environment_files=[f"/etc/incus-stt/{what.name}.env"],
            start_seconds=_DEADLINE,
            port=settings.port,
            card=context.device == "cuda",
            most_memory=_most_memory(context, what),
            socket=SOCKET,
        ),
        host=str(settings.host),
        port=settings.port,
        health=[HealthRequest(f"{context.base_url}/health", fields={"model": model.name})],
        deadline=_DEADLINE,
        socket=SOCKET,
    )
    return EngineService(
        steps,
        service,
        [upload.name, *model_needs, check.name],
        Evidence(url=f"{context.base_url}/health"),
        models=[what.directory],
    )


def _most_memory(context: EngineContext, what: OwnServer) -> int | None:
    """MiB for the unit: twice what was measured of the model, and a GiB; else None.

    A limit that ends a service that works is worse than none. So there is one only where the figure
    was measured, with this very server's engine, and where the machine's memory is all it takes: a
    card's driver takes as much of that as it likes.
    """
    known = context.model.known
    if context.device != "cpu" or what.engine != "whisper" or known is None:
        return None
    figure = known.cpu.get(context.compute_type)
    return 2 * figure.mib + 1024 if figure and figure.source is Source.MEASURED else None


def _program_step(context: EngineContext, what: OwnServer, upload: Step, venv: str) -> Step:
    lock = f"{server_directory()}/{PACKAGE}/locks/{what.locks[context.device]}"
    cuda = context.device == "cuda"
    sizes = download_sizes(Path(PACKAGE, "locks", what.locks[context.device]))
    python = ">=3.11,<3.14"
    actions = venv_actions(
        what.description, venv, lock, python, share=True, cuda=cuda, downloads=sizes
    )
    return Step(
        context.name("program"),
        Program(venv, what.description, actions, downloads=sizes),
        [upload.name, *context.uv],
    )


def limit_variables(settings: Settings) -> dict[str, str]:
    """``stt:limits`` as the server, and what comes before another one, reads it."""
    limits = settings.limits
    return {
        "STT_AUDIO_MINUTES": str(limits.audioMinutes),
        "STT_UPLOAD_MB": str(limits.uploadMB),
        "STT_WAITING": str(limits.waiting),
    }


def _variables(context: EngineContext, what: OwnServer, server: str, venv: str) -> dict[str, str]:
    settings = context.settings
    variables = {
        "STT_ENGINE": what.engine,
        "STT_HOST": str(settings.host),
        "STT_PORT": str(settings.port),
        "STT_MODEL_DIR": what.directory,
        "STT_PROGRAM": what.program,
        "STT_MODEL_NAME": context.model.name,
        "STT_MODEL_ALIASES": json.dumps(context.aliases),
        "STT_DEVICE": context.device,
        "STT_COMPUTE_TYPE": context.compute_type,
        "STT_LANGUAGE": settings.language,
        "STT_LANGUAGES": json.dumps(sorted(what.languages)),
        "STT_KEEP_ALIVE": str(settings.keep_alive),
        **limit_variables(settings),
        "STT_API_KEY_FILE": context.key_file,
        "STT_CLIENT_KEYS_FILE": context.client_keys_file,
        "PYTHONPATH": server,
        "ORT_DISABLE_TELEMETRY": "1",
        # Uploads wait there: /tmp is memory in some distributions.
        "TMPDIR": "/var/tmp",  # noqa: S108  # the unit's own (PrivateTmp)
    }
    if what.engine == "whisper":
        variables |= {"HF_HUB_OFFLINE": "1", **OPENMP}
    if context.device == "cuda":
        # CTranslate2 and ONNX Runtime load CUDA's libraries by name, from NVIDIA's wheels.
        variables |= {"LD_LIBRARY_PATH": f"{venv}/lib/cuda", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    return variables


def _check_step(
    context: EngineContext, what: OwnServer, server: str, venv: str, needs: Sequence[str]
) -> Step:
    """Fetch the model and load it once. Its spec has what makes a model load, and nothing else."""
    name = context.model.name
    load = Run(
        [f"{venv}/bin/python", "-m", f"{PACKAGE}.check_model"],
        failure=f"stt:model {name} does not load (above: why). The running service was not "
        "touched. Choose another model, or repair this one.",
        user=USER,
        environment={
            "HF_HUB_OFFLINE": "1",
            **(OPENMP if what.engine == "whisper" else {}),
            "ORT_DISABLE_TELEMETRY": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": server,
            "STT_ENGINE": what.engine,
            "STT_PROGRAM": what.program,
            "STT_MODEL_DIR": what.directory,
            "STT_MODEL_NAME": name,
            "STT_DEVICE": "cpu",
            "STT_COMPUTE_TYPE": context.check_type,
        },
    )
    fetch = [] if context.model.directory else what.fetch
    spec = Model(name, what.directory, load, fetch, f"{USER}:{USER}", context.model.download)
    return Step(context.name("model"), spec, needs)
