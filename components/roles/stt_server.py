"""Role ``stt_server``: the STT service, whichever engine runs it."""

from __future__ import annotations

import base64
import wave
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import ClassVar

import pulumi

from components.engines import ENGINES, EngineContext
from components.engines.engine import AUTHORIZATION, KEY, KEY_ENVIRONMENT, SERVICE, USER, VOLUME
from components.machine_script import MachineScript, digest
from components.roles.role import Role, role
from components.service import Service, ServiceArgs
from components.templates import ROOT, script
from declaration.declare import device_of
from declaration.settings import Settings
from declaration.topology import MachinePlan

#: What the verification lets the service hear: somebody says "one two three".
RECORDING = ROOT / "recordings" / "one_two_three.wav"


def stt_url(settings: Settings, machine: MachinePlan) -> str:
    """The base URL for OpenAI clients."""
    host = str(settings.host)
    return f"http://{machine.address if host == '0.0.0.0' else host}:{settings.port}/v1"  # noqa: S104


@cache
def _digest(path: str) -> str:
    return digest(Path(path))


def engine_args(settings: Settings, machine: MachinePlan) -> ServiceArgs:
    """The service as the configured engine wants it, without its key."""
    context = EngineContext(settings, device_of(machine), settings.model_ref, _digest)
    return ENGINES[settings.engine](context)


def verify_script(settings: Settings, machine: MachinePlan, unit: str) -> str:
    """The script that lets the service hear a recording."""
    with wave.open(str(RECORDING)) as audio:
        seconds = audio.getnframes() / audio.getframerate()
    return script(
        "verify_stt.sh.j2",
        recording=base64.b64encode(RECORDING.read_bytes()).decode("ascii"),
        audio_seconds=round(seconds, 3),
        authorization=AUTHORIZATION,
        model=settings.model,
        url=stt_url(settings, machine),
        unit=unit,
        machine=machine.name,
    )


@role("stt_server")
class SttServer(Role):
    """An OpenAI-compatible STT server with a key, and the proof that it hears.

    ``api_key``, ``check`` (the verification's JSON) and ``url`` are for the outputs.
    """

    volumes: ClassVar = {"models": VOLUME}

    def build(self, needs: Sequence[pulumi.Resource]) -> None:
        """Key, service, verification."""
        context, settings = self.context, self.context.settings
        mine = pulumi.ResourceOptions(parent=self)
        self.url = stt_url(settings, context.plan)
        self.api_key = context.shared.stt_key
        args = replace(
            engine_args(settings, context.plan),
            secrets=[
                (KEY, self.api_key, f"{USER}:{USER}"),
                (
                    AUTHORIZATION,
                    pulumi.Output.concat("Authorization: Bearer ", self.api_key, "\n"),
                    "root:root",
                ),
                (
                    KEY_ENVIRONMENT,
                    pulumi.Output.concat("API_KEY=", self.api_key, "\n"),
                    "root:root",
                ),
            ],
        )
        service = Service(context.name(SERVICE), context.instance, args, needs, mine)
        self.ready = service.configure
        unit = args.unit.name
        verify = MachineScript(
            context.name("stt_server/verify"),
            context.instance,
            # Its text changes with every new configuration, so that each is verified.
            service.configure.stdout.apply(
                lambda said: (
                    f"# {said.splitlines()[-1] if said else ''}\n"
                    + verify_script(settings, context.plan, unit)
                )
            ),
            needs=[service.configure],
            opts=mine,
        )
        self.check = verify.stdout

    @classmethod
    def wanted(cls, settings: Settings) -> bool:
        """``stt:enabled``."""
        return settings.enabled
