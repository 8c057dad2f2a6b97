"""How Speaches is installed and configured: from its tag and its own lock file.

What it reads, and what no version reads, was taken from its source (``speaches/config.py``).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from agent.actions import Action, Build, Git, Link, Run, Unpack
from agent.files import File
from agent.http import HealthRequest
from agent.kinds.model import Model
from agent.kinds.packages import Packages
from agent.kinds.program import Program
from agent.kinds.service import Service
from agent.kinds.transcription import Evidence
from agent.kinds.user import Directory
from declaration.artifacts import Artifact, download_sizes
from declaration.source_files import digest, own_digest
from declaration.step import Step
from declaration.unit import hardened_unit
from declaration.venv import BUILD_ENVIRONMENT, BUILDER, UV, UV_ENVIRONMENT, cuda_links
from engines.ctranslate2 import OPENMP
from engines.faster_whisper.service import FILES
from engines.hub import verify
from engines.own_server import PACKAGE, limit_variables, run_fetch, server_directory
from engines.service import (
    ETC,
    HOME,
    KEY_ENVIRONMENT,
    MODELS,
    SOCKET,
    USER,
    VOLUME,
    EngineContext,
    EngineService,
    header_file,
)

VERSION = "v0.9.0-rc.3"
PYTHON = "3.12"
COMMIT = "24f209c90218187747a9205f0b84bc06b42ce775"
REPOSITORY = "https://github.com/speaches-ai/speaches"
HUB = f"{VOLUME}/huggingface/hub"
ARTIFACTS = [
    Artifact(
        "pkg:github/speaches-ai/speaches",
        COMMIT,
        "MIT",
        REPOSITORY,
        "the commit, which names every file; its uv.lock has the SHA-256 of its packages",
        uv_project=PYTHON,
    ),
    Artifact(
        "pkg:generic/cpython",
        PYTHON,
        "PSF-2.0",
        "the image of the machines, or uv's own builds",
        "SHA-256, by uv, which knows its builds",
    ),
]
#: This project's programs for Speaches.
PROGRAMS = "engines/speaches/machine"
#: Compiles what uv does not: the standard library, and Speaches' own modules. Its user cannot write
#: there, so it would compile them at every start.
_COMPILE = """
import compileall, re, sys, sysconfig
place = sys.argv[1] if sys.argv[1:] else sysconfig.get_path("stdlib")
compileall.compile_dir(place, quiet=2, rx=re.compile("/(test|tests|site-packages)/"))
"""
#: The first one is what Speaches excludes by default.
_WITHOUT_CUDA = '["TensorrtExecutionProvider", "CUDAExecutionProvider"]'
#: Seconds that Speaches gets to start and to load its model.
_DEADLINE = 600


def hub_entry(repository: str) -> str:
    """Where Hugging Face's cache keeps a repository."""
    return f"{HUB}/models--{repository.replace('/', '--')}"


def service(context: EngineContext) -> EngineService:
    """The steps and the service."""
    checkout = f"/opt/incus-stt/speaches-{VERSION}-{context.device}"
    programs = f"/opt/incus-stt/speaches-programs-{own_digest(PROGRAMS)}"
    program_files = context.upload("programs", PROGRAMS, programs)
    # It brings fetch_model.py, which Speaches' Python runs.
    server = context.upload("server", PACKAGE, server_directory(), subdirectory=PACKAGE)
    packages = Step(
        context.name("packages"),
        Packages(["ca-certificates", "curl", "ffmpeg", "git"]),
        context.uv,
    )
    source, brought = context.bring("speaches", context.settings.sources.speaches or REPOSITORY)
    python, more = context.bring("python", context.settings.sources.python or "")
    brought += more
    program = Step(
        context.name("program"),
        Program(
            checkout,
            f"Speaches {VERSION}",
            _install(context, checkout, programs, source, python),
            downloads=_sizes(context.device),
        ),
        [packages.name, program_files.name, *(step.name for step in brought)],
    )
    repository, model_steps = _model_steps(context, checkout, programs)
    needs = [program_files.name, server.name, program.name, context.user_step]
    model_steps[-1] = _needing(model_steps[-1], [*needs, *(s.name for s in model_steps[:-1])])
    steps = [program_files, server, packages, *brought, program, *model_steps]
    unit = _service(context, checkout, programs, repository)
    return EngineService(
        steps,
        unit,
        [*needs, *(step.name for step in model_steps)],
        Evidence(unit="speaches", pattern=r"device=([a-z]*) compute_type=([a-z0-9_]*)"),
        [Directory(f"{VOLUME}/huggingface"), Directory(HUB), Directory(ETC, owner="root:root")],
        [hub_entry(repository), *_local_directory(context)],
    )


def _sizes(device: str) -> dict[str, int]:
    """Bytes of its packages by processor, and of NVIDIA's libraries."""
    sizes = download_sizes(ARTIFACTS[0])
    cuda = download_sizes(Path(PROGRAMS, "requirements-cuda.txt")) if device == "cuda" else {}
    return {each: size + cuda.get(f"{PYTHON} {each}", 0) for each, size in sizes.items()}


def _needing(step: Step, needs: Sequence[str]) -> Step:
    return Step(step.name, step.spec, needs, step.after, step.source)


def _install(
    context: EngineContext, checkout: str, programs: str, source: str, python: str
) -> list[Action]:
    """Its tag, its own lock file, and the libraries that its lock lacks."""
    fetched = Git(
        source,
        f"refs/tags/{VERSION}",
        COMMIT,
        checkout,
        failure=f"Speaches could not be fetched from {source}. Where this address cannot be "
        "reached, set stt:sources.speaches to a mirror or to a git bundle.",
    )
    version, environment = PYTHON, dict(UV_ENVIRONMENT)
    made: list[Action] = [fetched]
    if python.startswith("/opt/"):
        made.append(Unpack(python, f"{checkout}/.python", single=True))
        version = f"{checkout}/.python/bin/python{PYTHON}"
    elif python:
        environment["UV_PYTHON_INSTALL_MIRROR"] = python
    venv = f"{checkout}/.venv"
    into = ["--quiet", "--require-hashes", "--python", f"{venv}/bin/python"]
    sync = ["sync", "--quiet", "--frozen", "--compile-bytecode", "--no-dev", "--python", version]
    failure = (
        f"uv could not install Speaches (above: what it says). It needs Python {PYTHON}: of the "
        "image, or downloaded; see stt:image and stt:sources.python. Then run up again: what was "
        "downloaded is kept."
    )
    # Neither of these runs what a package brings: the interpreter starts without any.
    made += [
        Run(
            [UV, "venv", "--quiet", "--python", version, venv],
            failure=failure,
            environment=environment,
        ),
        Run([f"{venv}/bin/python", "-I", "-S", "-c", _COMPILE]),
    ]
    building = {**environment, **BUILD_ENVIRONMENT}
    runs = [
        Run(words, failure=failure, directory=directory, environment=building)
        for words, directory in (
            # What builds packages is in the environment, each with its hash. Else uv would fetch
            # the newest, without one. It goes again with the sync, which wants it no more.
            ([UV, "pip", "install", *into, "-r", f"{programs}/requirements-build.txt"], "/"),
            ([UV, *sync, "--no-build-isolation"], checkout),
        )
    ]
    runs.append(Run([f"{venv}/bin/python", "-c", _COMPILE, "src"], directory=checkout))
    if context.device == "cuda":
        runs.append(
            Run(
                [UV, "pip", "install", *into, "-r", f"{programs}/requirements-cuda.txt"],
                environment=building,
                failure="uv could not install NVIDIA's libraries. Check the machine's network and "
                "disk, then run up again.",
            )
        )
        runs.append(cuda_links(venv))
    made.append(Build(BUILDER, checkout, runs))
    # It finds its static files from its working directory.
    made.append(Link(f"{checkout}/realtime-console", ETC))
    return made


def _local_directory(context: EngineContext) -> list[str]:
    """Where a directory of the operator's is in the machine."""
    model = context.model
    if not model.directory:
        return []
    return [f"{MODELS}/{model.slug}-{digest(Path(model.directory))}"]


def _model_steps(context: EngineContext, checkout: str, programs: str) -> tuple[str, list[Step]]:
    """What Speaches calls the model, and the steps that bring it; the last one loads it."""
    model = context.model
    python = f"{checkout}/.venv/bin/python"
    steps: list[Step] = []
    if local := _local_directory(context):
        repository, directory = f"local/{model.slug}", local[0]
        steps.append(context.upload("model-files", model.directory, directory, model=True))
        link = ["python3", f"{programs}/link_model.py", hub_entry(repository), directory]
        fetch: list[Action] = [Run(link, user=USER)]
    else:
        repository = model.repository
        fetch_run = run_fetch(context, python, "", FILES)
        hub = {**fetch_run.environment, "HF_HUB_CACHE": HUB}
        fetch = [
            Run(fetch_run.argv, fetch_run.failure, user=USER, environment=hub),
            *verify(repository, f"{hub_entry(repository)}/snapshots/*"),
        ]
    entry = hub_entry(repository)
    load = Run(
        [python, f"{programs}/check_model.py", entry, context.check_type, model.name],
        failure=f"stt:model {model.name} cannot be used (above: why). The running service was not "
        "touched. Choose another model, or repair this one.",
        user=USER,
        environment={
            "HF_HUB_OFFLINE": "1",
            "ORT_DISABLE_TELEMETRY": "1",
            **OPENMP,
        },
    )
    spec = Model(model.name, entry, load, fetch, f"{USER}:{USER}", model.download)
    steps.append(Step(context.name("model"), spec))
    return repository, steps


def _service(context: EngineContext, checkout: str, programs: str, repository: str) -> Service:
    settings = context.settings
    names = [context.model.name, *context.aliases]
    aliases = dict.fromkeys(names, repository)
    return Service(
        unit="speaches",
        environment_file="/etc/incus-stt/speaches.env",
        variables=_variables(context, checkout),
        sections=hardened_unit(
            description="Speech to text: Speaches",
            user=USER,
            command=f"{checkout}/.venv/bin/python {programs}/speaches_app.py",
            directory=ETC,
            writable=[HOME, HUB],
            environment_files=[
                "/etc/incus-stt/speaches.env",
                *([KEY_ENVIRONMENT] if settings.asks_key else []),
            ],
            port=settings.port,
            card=context.device == "cuda",
            socket=SOCKET,
        ),
        files=[
            # Read once, at start, from the working directory.
            File(f"{ETC}/model_aliases.json", json.dumps(aliases, indent=2) + "\n"),
        ],
        host=str(settings.host),
        port=settings.port,
        health=[
            HealthRequest(f"{context.base_url}/health"),
            # Loads the model; 409: it is loaded.
            HealthRequest(
                f"{context.base_url}/api/ps/{repository}",
                method="POST",
                statuses=[201, 409],
                header_file=header_file(settings),
                decisive=True,
                timeout=300,
            ),
        ],
        deadline=_DEADLINE,
        socket=SOCKET,
    )


def _variables(context: EngineContext, checkout: str) -> dict[str, str]:
    settings = context.settings
    keep_alive = str(settings.keep_alive)
    variables = {
        "HOME": HOME,
        "UVICORN_HOST": str(settings.host),
        "UVICORN_PORT": str(settings.port),
        "INCUS_STT_LANGUAGE": settings.language,
        "STT_CLIENT_KEYS_FILE": context.client_keys_file,
        **limit_variables(settings),
        # The wrapper takes from there how clients' keys are read, and the limits.
        "PYTHONPATH": server_directory(),
        "STT_MODEL_TTL": keep_alive,
        # The voice detector takes a CUDA context of its own.
        "VAD_MODEL_TTL": keep_alive,
        "WHISPER__INFERENCE_DEVICE": context.device,
        "WHISPER__COMPUTE_TYPE": context.compute_type,
        "HF_HUB_CACHE": HUB,
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "ORT_DISABLE_TELEMETRY": "1",
        "LOG_LEVEL": "info",
        "ENABLE_UI": "false",
        "DO_NOT_TRACK": "1",
        "GRADIO_ANALYTICS_ENABLED": "False",
        "PYTHONDONTWRITEBYTECODE": "1",
        # Uploads wait there: /tmp is memory in some distributions.
        "TMPDIR": "/var/tmp",  # noqa: S108  # the unit's own (PrivateTmp)
        **OPENMP,
    }
    if context.device == "cuda":
        library = f"{checkout}/.venv/lib/cuda"
        variables |= {"LD_LIBRARY_PATH": library, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    else:
        # Its ONNX Runtime is built for CUDA, and logs errors where it finds none.
        variables["UNSTABLE_ORT_OPTS__EXCLUDE_PROVIDERS"] = _WITHOUT_CUDA
    return variables
