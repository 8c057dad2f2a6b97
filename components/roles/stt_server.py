"""Role ``stt_server``: the STT service, whichever engine runs it."""

from __future__ import annotations

import re
import wave
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import ClassVar

import pulumi

from components.engines import ENGINES, EngineContext
from components.engines.engine import AUTHORIZATION, KEY, KEY_ENVIRONMENT, SERVICE, USER, VOLUME
from components.facts import sealed, service_facts
from components.machine_script import MachineScript, Upload, digest
from components.roles.role import Facts, Role, role
from components.service import Service, ServiceArgs
from components.templates import ROOT, script
from declaration.settings import Settings
from declaration.topology import MachinePlan
from declaration.urls import stt_url
from stack.declare import Declaration

#: What the verification lets the service hear: somebody says "one two three".
RECORDING = ROOT / "recordings" / "one_two_three.wav"


@cache
def _digest(path: str) -> str:
    return digest(Path(path))


def recording_path() -> str:
    """Where the recording lies in the machine."""
    return f"/opt/incus-stt/recording-{_digest(str(RECORDING))}.wav"


def stt_args(declaration: Declaration, machine: MachinePlan, key: pulumi.Input[str]) -> ServiceArgs:
    """The service as the configured engine wants it, with its key."""
    context = EngineContext(
        declaration.settings,
        declaration.engine,
        declaration.device_of(machine),
        declaration.model,
        declaration.compute_type,
        _digest,
    )
    header = pulumi.Output.concat("Authorization: Bearer ", key, "\n")
    variable = pulumi.Output.concat("API_KEY=", key, "\n")
    return replace(
        ENGINES[declaration.engine.name](context),
        secrets=[
            (KEY, key, f"{USER}:{USER}"),
            (AUTHORIZATION, header, "root:root"),
            (KEY_ENVIRONMENT, variable, "root:root"),
        ],
    )


def verify_script(declaration: Declaration, machine: MachinePlan, args: ServiceArgs) -> str:
    """The script that lets the service hear a recording, and sees what it runs on."""
    with wave.open(str(RECORDING)) as audio:
        seconds = audio.getnframes() / audio.getframerate()
    return script(
        "verify_stt.sh.j2",
        service=SERVICE,
        recording=recording_path(),
        audio_seconds=round(seconds, 3),
        authorization=AUTHORIZATION,
        model=declaration.model.name,
        url=stt_url(declaration.settings, machine),
        unit=args.unit.name,
        machine=machine.name,
        device=declaration.device_of(machine),
        evidence=args.evidence.strip(),
        engine=declaration.engine.name,
    )


def prune_script(args: ServiceArgs) -> str:
    """The script that removes the models of before."""
    kept = [args.model_directory, *(sent.destination for sent in args.sent)]
    return script(
        "prune_models.sh.j2",
        service=SERVICE,
        kept=[path for path in kept if path.startswith(f"{VOLUME}/")],
    )


def read_times(said: Sequence[str]) -> dict[str, float]:
    """Seconds of each step, from the lines ``took: STEP=MILLISECONDS`` of scripts' outputs."""
    found = re.findall(r"^took: (\w+)=(\d+)$", "\n".join(said), re.MULTILINE)
    return {step: int(milliseconds) / 1000 for step, milliseconds in found}


@role("stt_server")
class SttServer(Role):
    """An OpenAI-compatible STT server with a key, and the proof that it hears.

    ``api_key``, ``check`` (the verification's JSON), ``times`` (seconds of the last change's steps)
    and ``url`` are for the outputs.
    """

    volumes: ClassVar = {"models": VOLUME}

    @classmethod
    def facts(cls, declaration: Declaration, plan: MachinePlan) -> Facts:
        """The service."""
        recording = {plan.resource("recording"): [sealed(recording_path())]}
        return recording | service_facts(plan.resource(SERVICE), stt_args(declaration, plan, ""))

    def build(self, needs: Sequence[pulumi.Resource]) -> None:
        """Key, service, verification."""
        context, settings = self.context, self.context.settings
        mine = pulumi.ResourceOptions(parent=self)
        self.url = stt_url(settings, context.plan)
        self.api_key = context.shared.stt_key
        args = stt_args(context.declaration, context.plan, self.api_key)
        self.service = service = Service(context.name(SERVICE), context.instance, args, needs, mine)
        self.ready = service.configure
        recording = Upload(
            context.name("recording"),
            context.instance,
            str(RECORDING.relative_to(ROOT)),
            recording_path(),
            needs=needs,
            opts=mine,
        )
        verify = MachineScript(
            context.name("stt_server/verify"),
            context.instance,
            verify_script(context.declaration, context.plan, args),
            # Its last line changes with every new configuration, so that each is verified.
            after=service.last_line,
            needs=[service.configure, recording],
            opts=mine,
        )
        self.check, self.verified = verify.stdout, verify
        if not settings.keepModels and args.model_directory:
            MachineScript(
                context.name("stt_server/prune"),
                context.instance,
                prune_script(args),
                # What is verified alone makes the models of before superfluous.
                after=service.last_line,
                needs=[verify],
                opts=mine,
            )
        said = [each.stdout for each in (service.model, service.configure) if each]
        self.times = pulumi.Output.all(*said).apply(read_times)

    @classmethod
    def wanted(cls, settings: Settings) -> bool:
        """``stt:enabled``."""
        return settings.enabled
