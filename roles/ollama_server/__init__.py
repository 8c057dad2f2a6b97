"""Role ``ollama_server``: Ollama, beside the STT service on the same GPU."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from agent.actions import Action, Download, Unpack
from agent.files import File
from agent.http import HealthRequest
from agent.kinds.files import Files
from agent.kinds.packages import Packages
from agent.kinds.program import Program
from agent.kinds.run import Run
from agent.kinds.service import Service
from agent.kinds.upload import Upload
from agent.kinds.user import Directory, User
from agent.progress import amount
from declaration.artifacts import Artifact, known_sums, locked
from declaration.notice import Notice
from declaration.ollama_models import estimated_bytes
from declaration.source_files import digest, own_digest
from declaration.step import Step
from declaration.unit import hardened_unit
from declaration.urls import ollama_url
from gpu.ollama import ollama_models, undeclared_models
from roles.role import CardUser, Context, Role

VERSION = "0.32.15"
#: What releases of 2026 had (ollama#13651: 1.1 GB; 0.17.4: 1.7 GB), where the lock has no sizes.
USUAL_SIZE = "1 to 2 GB"
RELEASE = f"https://github.com/ollama/ollama/releases/download/v{VERSION}"
SUMS = f"{RELEASE}/sha256sum.txt"
ARTIFACTS = [
    Artifact(
        "pkg:github/ollama/ollama",
        f"v{VERSION}",
        "MIT",
        RELEASE,
        "SHA-256 of the files that have one here; of the others by the release's own sha256sum.txt",
        patterns=[f"ollama-linux-{each}.tar.zst" for each in ("amd64", "arm64", "amd64-rocm")],
        listing=SUMS,
    ),
    Artifact(
        "pkg:generic/ollama-models",
        "",
        "each its own",
        "Ollama's library, by name (stt:ollama.models)",
        "SHA-256, by Ollama, from the model's manifest; a name may mean another model later",
    ),
]
USER, UID, HOME = "ollama", 902, "/var/lib/ollama"
VOLUME = "/srv/models"
MODELS = f"{VOLUME}/ollama"
UNIT = "ollama"
PROGRAMS = "roles/ollama_server/machine"
_NAME = "ollama_server"
#: Seconds that Ollama gets to answer.
_DEADLINE = 60


def _program(context: Context) -> tuple[Program, list[Step]]:
    """Ollama's installation, and what has to be brought before."""
    source = context.settings.sources.ollama or RELEASE
    if source == RELEASE:
        rocm = context.machine.gpu_vendor == "amd"
        directory = f"/opt/incus-stt/ollama-{VERSION}{'-rocm' if rocm else ''}"
        what = f"Ollama {VERSION} ({_size(rocm)} to download)"
        return _installed(directory, what, _release(directory, rocm), source), []
    what = f"Ollama from {source}"
    if Path(source).is_file():
        tag = digest(Path(source))
        archive = f"/opt/incus-stt/sources/ollama-{tag}"
        upload = Upload(archive, directory=False)
        brought = [Step(context.part(f"{_NAME}/source-ollama"), upload, source=source)]
        directory = f"/opt/incus-stt/ollama-{tag}"
        return _installed(directory, what, [Unpack(archive, directory)], source), brought
    directory = f"/opt/incus-stt/ollama-{hashlib.sha256(source.encode()).hexdigest()[:12]}"
    archive = f"{directory}.archive"
    failure = (
        f"stt:sources.ollama: {source} could not be downloaded. Check the address, then run up "
        "again."
    )
    fetch = Download(source, archive, failure=failure)
    actions: list[Action] = [fetch, Unpack(archive, directory, cleanup=True)]
    return _installed(directory, what, actions, source), []


def _installed(directory: str, description: str, actions: Sequence[Action], source: str) -> Program:
    return Program(
        directory,
        description,
        actions,
        requires="bin/ollama",
        failure=f"stt:sources.ollama: {source} does not hold bin/ollama. Use an archive such as "
        "Ollama publishes.",
    )


def _archives(rocm: bool) -> list[str]:
    """The release's files, without their suffix; AMD's libraries are in one of their own."""
    return ["ollama-linux-{architecture}", *(["ollama-linux-{architecture}-rocm"] * rocm)]


def _size(rocm: bool) -> str:
    """How much the release downloads, in words: on x86-64, whose archive is the larger one."""
    known = locked().artifacts[ARTIFACTS[0].name].files
    names = [f"{name}.tar.zst".format(architecture="amd64") for name in _archives(rocm)]
    sizes = [known[name].size for name in names if name in known]
    return amount(sum(sizes)) if len(sizes) == len(names) and all(sizes) else USUAL_SIZE


def _release(directory: str, rocm: bool) -> list[Action]:
    actions: list[Action] = []
    known = known_sums("pkg:github/ollama/ollama", f"v{VERSION}")
    for name in _archives(rocm):
        kept = f"/var/cache/incus-stt/{name.replace('{architecture}', VERSION)}.tar.zst"
        failure = (
            f"Ollama could not be downloaded from {RELEASE}. Where this address cannot be reached, "
            "set stt:sources.ollama to a mirror's archive or to a local file. Then run up again: "
            "the download continues where it stopped."
        )
        actions += [
            Download(f"{RELEASE}/{name}.tar.zst", kept, SUMS, failure, known),
            Unpack(kept, directory, cleanup=True),
        ]
    return actions


def _service(context: Context, directory: str) -> Service:
    settings, port = context.settings, context.settings.ollama.port
    api = f"http://127.0.0.1:{port}/api"
    nvidia = context.machine.gpu_vendor == "nvidia"
    return Service(
        unit=UNIT,
        environment_file="/etc/incus-stt/ollama.env",
        variables={
            "HOME": HOME,
            "OLLAMA_HOST": f"0.0.0.0:{port}",
            "OLLAMA_MODELS": MODELS,
            "OLLAMA_KEEP_ALIVE": settings.ollama.keepAlive,
            "OLLAMA_NO_CLOUD": "1",
            **({"CUDA_DEVICE_ORDER": "PCI_BUS_ID"} if nvidia else {}),
        },
        sections=hardened_unit(
            description="Ollama",
            user=USER,
            command=f"{directory}/bin/ollama serve",
            directory=HOME,
            writable=[HOME, MODELS],
            environment_files=["/etc/incus-stt/ollama.env"],
            port=port,
            card=context.machine.gpu_vendor is not None,
        ),
        port=port,
        health=[HealthRequest(f"{api}/version")],
        # Its models and their sizes, for the planner.
        reports={"ollama_tags": f"{api}/tags", "ollama_ps": f"{api}/ps"},
        deadline=_DEADLINE,
    )


def steps(context: Context) -> list[Step]:
    """The service, what proves that it runs on the GPU, then its models."""
    installed, brought = _program(context)
    directory = installed.directory
    user = Step(
        context.part(f"{_NAME}/user"),
        User(
            USER,
            UID,
            HOME,
            [Directory(VOLUME, owner="root:root"), Directory(MODELS, "0750")],
        ),
    )
    packages = Step(
        context.part(f"{_NAME}/packages"),
        Packages(["ca-certificates", "curl", "zstd"]),
        context.base("packages"),
    )
    program = Step(
        context.part(f"{_NAME}/program"),
        installed,
        [packages.name, *(step.name for step in brought)],
    )
    command = Step(context.part(f"{_NAME}/command"), Files([_command(context, directory)]))
    service = Step(
        context.part(f"{_NAME}/service"), _service(context, directory), [program.name, user.name]
    )
    return [*brought, user, packages, program, command, service, *_programs(context, service)]


def _command(context: Context, directory: str) -> File:
    """The client on the machine's PATH."""
    port = context.settings.ollama.port
    return File(
        "/usr/local/bin/ollama",
        f'#!/bin/sh\nOLLAMA_HOST="${{OLLAMA_HOST:-127.0.0.1:{port}}}" '
        f'exec {directory}/bin/ollama "$@"\n',
        "0755",
    )


def _programs(context: Context, service: Step) -> list[Step]:
    """What this project's own programs do with it."""
    models, port = context.settings.ollama.models, context.settings.ollama.port
    if not (models or context.machine.gpus):
        return []
    place = f"/opt/incus-stt/ollama-programs-{own_digest(PROGRAMS)}"
    upload = Step(context.part(f"{_NAME}/programs"), Upload(place), source=PROGRAMS)
    needs = [upload.name, service.name]
    found = [upload]
    if context.machine.gpus:
        verify = Run(
            ["python3", f"{place}/verify_gpu.py"],
            resolution=f"See nvidia-smi and journalctl -u ollama in {context.machine.name}.",
            failure="Ollama does not run on the GPU.",
        )
        found.append(Step(context.part(f"{_NAME}/verify"), verify, needs, [service.name]))
        needs = [found[-1].name, upload.name]
    if models:
        pull = Run(
            ["python3", f"{place}/models.py", "pull", str(port), VOLUME, *models],
            check_argv=["python3", f"{place}/models.py", "check", str(port), *models],
            failure="stt:ollama.models: a model could not be pulled.",
            shown=True,
            online=True,
            download=round(sum(estimated_bytes(model) or 0 for model in models) / 1e6),
            resolution="Check its name and the machine's network, then run up again: what was "
            "downloaded is kept.",
            deadline=7200,
        )
        found.append(Step(context.part(f"{_NAME}/models"), pull, needs))
    return found


def _outputs(context: Context) -> dict[str, str]:
    return {"ollama_url": ollama_url(context.settings, context.machine)}


ROLE = Role(
    _NAME,
    "Ollama, for Open WebUI's chats",
    steps,
    volumes={"models": VOLUME},
    outputs=_outputs,
    listens=lambda settings: {"stt:ollama.port": settings.ollama.port},
    artifacts=ARTIFACTS,
    card_user=CardUser(
        UNIT,
        models=lambda settings, answers: ollama_models(settings.ollama.models, answers),
        loaded=lambda settings, answers: undeclared_models(settings.ollama.models, answers),
    ),
    notices={f"{_NAME}/service": Notice("Ollama restarts: answers that it is writing are cut off")},
)
