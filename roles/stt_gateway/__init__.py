"""Role ``stt_gateway``: one address in front of several STT servers, which loses no request."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from agent.kinds.secret_files import SecretFiles
from agent.kinds.transcription import Transcription
from declaration.gateway import server_address
from declaration.settings import Settings
from declaration.step import Step
from declaration.tls import private_key
from declaration.urls import GATEWAY_PLAIN, gateway_host, gateway_url
from engines import MODEL_ALIAS
from roles.role import Context, Result, Role
from roles.stt_gateway import service
from roles.stt_server.access import authorization, client_outputs, keys
from roles.stt_server.verification import (
    ERROR_RATE,
    common_words,
    duration,
    recording_file,
    recording_step,
)
from stack.checks import STT_ROLE
from stack.declare import SttService
from stack.gateway import (
    gateway_runs,
    gateway_servers,
    may_lead_to,
    nearest_behind,
    servers_behind,
)

#: Seconds in which the watcher sees that a server works.
_PATIENCE = 30


def steps(context: Context) -> list[Step]:
    """The two services, a transcription through them, and before them one at servers elsewhere."""
    recording, verify, spec = _verification(context)
    key, tried = _servers_elsewhere(context, recording, spec)
    # At another port the first server has to work before its gateway asks it there; until then,
    # and if it goes back, the other ones are asked where they are.
    domain = context.machine.domain
    near = [each.machine for each in _behind(context) if each.machine.domain == domain]
    first = [machine.resource(f"{STT_ROLE}/verify") for machine in near[:1]]
    own = service.steps(context, first, [each.name for each in tried])
    return [*own, recording, verify, *key, *tried]


def _behind(context: Context) -> list[SttService]:
    """All STT services of this stack that it asks, or may: those published for it as well."""
    declaration = context.declaration
    behind = servers_behind(context.settings, declaration.topology, context.machine)
    return [declaration.service_on(machine) for machine in behind]


def _verification(context: Context) -> tuple[Step, Step, Transcription]:
    """The recording, and the transcription through the gateway as a step and as its spec."""
    settings = context.settings
    place, recording = recording_step(context, service.NAME)
    services = _behind(context)
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
    # Another model is tried here too.
    nearest = nearest_behind(machines, context.machine)
    after += [machine.resource(f"{STT_ROLE}/service") for machine in nearest]
    step = Step(context.part(f"{service.NAME}/verify"), verify, needs, after)
    return recording, step, verify


def _servers_elsewhere(
    context: Context, recording: Step, verify: Transcription
) -> tuple[list[Step], list[Step]]:
    """The key for them, and a transcription at each of ``stt:gateway.servers``, past the gateway.

    One with another key, or another problem, is named by `up`; the watcher would only leave it out.
    Servers of this stack, whose own machines publish them, are among these: they change first.
    """
    settings, topology = context.settings, context.declaration.topology
    if not settings.gateway.servers:
        return [], []
    key: list[Step] = []
    if settings.asks_key:
        header = SecretFiles([authorization(service.SERVERS_AUTHORIZATION)])
        key.append(Step(context.part(f"{service.NAME}/servers-key"), header))
    behind = [each.machine for each in _behind(context)]
    needs = [
        recording.name,
        context.part(f"{service.NAME}/packages"),
        # By then all of this stack have its key, also where this fails: of two stacks, each may
        # try the other's.
        *(machine.resource(f"{STT_ROLE}/verify") for machine in behind),
    ]
    published = {each.url: each.to for each in topology.links}
    found: list[Step] = []
    for url in settings.gateway.servers:
        address, port = server_address(url)
        spec = replace(
            verify,
            url=f"http://{address}:{port}/v1",
            certificate="",
            name="",
            header_file=service.SERVERS_AUTHORIZATION if key else "",
            elsewhere=True,
            published_by=published.get(url, ""),
        )
        after = [each.name for each in key]
        after += [
            machine.resource(f"{STT_ROLE}/service")
            for machine in behind
            if may_lead_to(url, settings, topology, machine)
        ]
        name = context.part(f"{service.NAME}/server-{address}-{port}")
        found.append(Step(name, spec, needs, after))
    return key, found


def _url(context: Context) -> str:
    """The base URL by the machine's address, which it knows of itself."""
    gateway = context.settings.gateway
    return f"{gateway.scheme}://{context.machine.address}:{gateway.port}/v1"


def _outputs(context: Context) -> dict[str, Any]:
    settings = context.settings
    url = gateway_url(settings, context.machine)
    servers = gateway_servers(settings, context.declaration.topology, context.machine)
    services = _behind(context)
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
    notices=service.NOTICES,
)
