"""Role ``stt_gateway``: one address in front of several STT servers, which loses no request."""

from __future__ import annotations

from typing import Any

from agent.kinds.transcription import Transcription
from declaration.settings import Settings
from declaration.step import Step
from declaration.tls import private_key
from declaration.urls import GATEWAY_PLAIN, gateway_host, gateway_url
from engines import MODEL_ALIAS
from roles.role import Context, Result, Role
from roles.stt_gateway import service
from roles.stt_server.access import client_outputs, keys
from roles.stt_server.verification import (
    ERROR_RATE,
    common_words,
    duration,
    recording_file,
    recording_step,
)
from stack.checks import STT_ROLE
from stack.declare import SttService
from stack.gateway import gateway_runs, gateway_servers

#: Seconds in which the watcher sees that a server works.
_PATIENCE = 30


def steps(context: Context) -> list[Step]:
    """The two services, and a transcription through them."""
    return [*service.steps(context), *_verification(context)]


def _services(context: Context) -> list[SttService]:
    """The STT services of its domain."""
    declaration, domain = context.declaration, context.machine.domain
    services = declaration.services if context.settings.enabled else ()
    return [each for each in services if each.machine.domain == domain]


def _verification(context: Context) -> list[Step]:
    settings = context.settings
    place, recording = recording_step(context, service.NAME)
    services = _services(context)
    machines = [each.machine for each in services]
    # An engine of the operator's own may not know the alias.
    named = services[:1] if context.declaration.engine.self_contained else []
    host = gateway_host(settings, context.machine)
    verify = Transcription(
        url=_url(context),
        certificate=service.trusted(settings),
        name=host if host != str(context.machine.address) else "",
        model=named[0].model.name if named else MODEL_ALIAS,
        recording=place,
        seconds=duration(recording_file(context)),
        header_file=service.AUTHORIZATION if settings.asks_key else "",
        unit="stt-gateway",
        engine=settings.engine,
        # Which server it was is not known here; each of them proves what it runs on.
        device="",
        patience=_PATIENCE,
        words=common_words(settings, services),
        error_rate=ERROR_RATE,
    )
    needs = [
        recording.name,
        *context.base("packages"),
        *(machine.resource(f"{STT_ROLE}/verify") for machine in machines),
    ]
    after = [context.part(f"{service.NAME}/{part}") for part in ("watcher", "service")]
    if settings.gateway.tls == "files":
        after.append(context.part(f"{service.NAME}/certificate"))
    # Another model or key is tried here too.
    after += [machine.resource(f"{STT_ROLE}/service") for machine in machines]
    return [recording, Step(context.part(f"{service.NAME}/verify"), verify, needs, after)]


def _url(context: Context) -> str:
    """The base URL by the machine's address, which it knows of itself."""
    gateway = context.settings.gateway
    return f"{gateway.scheme}://{context.machine.address}:{gateway.port}/v1"


def _outputs(context: Context) -> dict[str, Any]:
    settings = context.settings
    url = gateway_url(settings, context.machine)
    servers = gateway_servers(settings, context.declaration.topology, context.machine)
    services = _services(context)
    internal = settings.gateway.tls == "internal"
    authority = Result(context.part(f"{service.NAME}/authority"), "certificate")
    return {
        **client_outputs(
            context,
            url,
            services[0].model.name if services else MODEL_ALIAS,
            "gateway_ca" if internal else "",
        ),
        "gateway_servers": {each.name: f"http://{each.address}:{each.port}" for each in servers},
        "gateway_check": Result(context.part(f"{service.NAME}/verify")),
        **({"gateway_ca": authority} if internal else {}),
    }


def _secrets(settings: Settings) -> dict[str, str]:
    found = keys(settings)
    if settings.gateway.tls == "files":
        found[service.PRIVATE_KEY] = private_key(settings.gateway.certificateKey)
    return found


def _listens(settings: Settings) -> dict[str, int]:
    if not gateway_runs(settings):
        return {}
    plain = {"stt:gateway.tls": GATEWAY_PLAIN} if settings.gateway.secure else {}
    return {"stt:gateway.port": settings.gateway.port, **plain}


ROLE = Role(
    service.NAME,
    "one address in front of the STT servers of its domain, and of others",
    steps,
    volumes={"gateway": service.VOLUME},
    data=["gateway"],
    secrets=_secrets,
    outputs=_outputs,
    in_front=True,
    shared=False,
    listens=_listens,
    enabled=gateway_runs,
    artifacts=[service.ARTIFACT],
)
