"""Role ``ollama_server``: Ollama, beside the STT service on the same GPU."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pulumi

from components.facts import Fact, service_facts
from components.machine_script import MachineScript, digest
from components.roles.role import Facts, Role, role
from components.service import Sent, Service, ServiceArgs, Unit
from components.templates import render, script
from declaration.settings import Settings
from declaration.topology import MachinePlan
from declaration.urls import ollama_url
from stack.declare import Declaration

VERSION = "0.32.15"
RELEASE = f"https://github.com/ollama/ollama/releases/download/v{VERSION}"
USER, UID, HOME = "ollama", 902, "/var/lib/ollama"
MODELS = "/srv/models/ollama"


def ollama_args(settings: Settings, machine: MachinePlan) -> ServiceArgs:
    """The service Ollama in a machine."""
    rocm = machine.gpu_vendor == "amd"
    source = settings.sources.ollama or RELEASE
    sent: list[Sent] = []
    if settings.sources.ollama and Path(source).is_file():
        tag = digest(Path(source))
        sent = [Sent("source-ollama", source, f"/opt/incus-stt/sources/ollama-{tag}")]
        archive = sent[0].destination
    else:
        tag = VERSION if source == RELEASE else hashlib.sha256(source.encode()).hexdigest()[:12]
        archive = ""
    directory = f"/opt/incus-stt/ollama-{tag}{'-rocm' if rocm else ''}"
    ours = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"} if machine.gpu_vendor == "nvidia" else {}
    unit = Unit(
        name="ollama",
        description="Ollama",
        user=USER,
        command=f"{directory}/bin/ollama serve",
        directory=HOME,
        writable=[HOME, MODELS],
        low_port=settings.ollama.port < 1024,
        variables={
            "HOME": HOME,
            "OLLAMA_HOST": f"0.0.0.0:{settings.ollama.port}",
            "OLLAMA_MODELS": MODELS,
            "OLLAMA_KEEP_ALIVE": settings.ollama.keepAlive,
            "OLLAMA_NO_CLOUD": "1",
            **ours,
        },
    )
    return ServiceArgs(
        name="ollama_server",
        unit=unit,
        uid=UID,
        port=settings.ollama.port,
        program=directory,
        sent=sent,
        install=script(
            "ollama/install.sh.j2",
            service="ollama_server",
            user=USER,
            uid=UID,
            home=HOME,
            models=MODELS,
            directory=directory,
            archive=archive,
            source=source,
            release=source == RELEASE,
            rocm=rocm,
        ),
        check_environment=render(
            "ollama/check_environment.sh.j2",
            directory=directory,
            names=[name for name in unit.variables if name.startswith("OLLAMA_")],
        ),
        health=render("ollama/health.sh.j2", port=settings.ollama.port),
        timeout=60,
    )


def verify_script(machine: MachinePlan) -> str:
    """The script that sees whether Ollama found the GPU: without one it goes on in silence."""
    return script("ollama/verify_gpu.sh.j2", service="ollama_server", machine=machine.name)


def _has(port: int, model: str) -> str:
    """The question whether Ollama has a model."""
    body = shlex.quote(json.dumps({"model": model}))
    return (
        f"curl --silent --fail --noproxy '*' --max-time 10 --output /dev/null --data {body} "
        f"http://127.0.0.1:{port}/api/show && echo there || echo not there"
    )


@role("ollama_server")
class OllamaServer(Role):
    """Ollama with the models of ``stt:ollama.models``."""

    volumes: ClassVar = {"models": "/srv/models"}

    @classmethod
    def facts(cls, declaration: Declaration, plan: MachinePlan) -> Facts:
        """The service, and the models that it has."""
        facts = service_facts(
            plan.resource("ollama_server"), ollama_args(declaration.settings, plan)
        )
        models, port = declaration.settings.ollama.models, declaration.settings.ollama.port
        if models:
            facts[plan.resource("ollama_server/models")] = [
                Fact(f"model {model}", _has(port, model), "there") for model in models
            ]
        return facts

    def build(self, needs: Sequence[pulumi.Resource]) -> None:
        """The service, then its models."""
        context, settings = self.context, self.context.settings
        mine = pulumi.ResourceOptions(parent=self)
        self.url = ollama_url(settings, context.plan)
        args = ollama_args(settings, context.plan)
        service = Service(context.name("ollama_server"), context.instance, args, needs, mine)
        self.ready: pulumi.Resource = service.configure
        if context.plan.gpus:
            self.ready = MachineScript(
                context.name("ollama_server/verify"),
                context.instance,
                verify_script(context.plan),
                after=service.last_line,
                needs=[service.configure],
                opts=mine,
            )
        if settings.ollama.models:
            self.ready = MachineScript(
                context.name("ollama_server/models"),
                context.instance,
                script(
                    "ollama/models.sh.j2",
                    service="ollama_server",
                    port=settings.ollama.port,
                    models=settings.ollama.models,
                ),
                needs=[self.ready],
                opts=mine,
            )
