"""Role ``stt_server``: the STT service, whichever engine runs it, and the proof that it works."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from agent.files import File
from agent.kinds.files import Files
from agent.kinds.prune import Prune
from agent.kinds.user import Directory, User
from agent.systemd import UNITS, unit_text
from declaration.problems import show
from declaration.settings import Settings
from declaration.step import Step
from declaration.topology import MachinePlan
from declaration.unit import HARDENING, WITHOUT_CARD, Sections
from declaration.urls import stt_url
from declaration.venv import WHEELS
from engines import ENGINES
from engines.service import (
    HOME,
    MODELS,
    SERVICE,
    UID,
    USER,
    VOLUME,
)
from roles.role import Context, Result, Role
from roles.stt_server.access import (
    API_KEY,
    client_keys_file,
    client_outputs,
    keys,
    secret_files,
)
from roles.stt_server.verification import (
    drain,
    expected_words,
    gateways,
    proof_of_change,
    recording_file,
    recording_step,
    transcription,
)
from stack.role_rules import Bound

#: The unit that documents and habits know the STT service by.
SPEACHES = "speaches.service"


def steps(context: Context) -> list[Step]:
    """User, engine, key, service, verification."""
    engine = context.declaration.engine_services[context.machine.full_name]
    service_name = context.part(f"{SERVICE}/service")
    user = Step(
        context.part(f"{SERVICE}/user"),
        User(
            USER,
            UID,
            HOME,
            [Directory(VOLUME, owner="root:root"), Directory(MODELS), *engine.directories],
        ),
    )
    # Another key restarts the service.
    secrets = Step(
        context.part(f"{SERVICE}/secrets"),
        secret_files(f"{SERVICE}/service"),
        [user.name],
        follows=_server_before(context),
    )
    keys = [secrets] if context.settings.asks_key else []
    if context.settings.asks_key and context.declaration.engine.client_keys:
        # Even if there are no clients: the server would take keys that somebody puts there.
        clients = client_keys_file(context.settings)
        keys.append(Step(context.part(f"{SERVICE}/clients"), clients, [user.name]))
    place, recording = recording_step(context, SERVICE)
    proof, heard = proof_of_change(context, engine) or (None, recording)
    service = Step(
        service_name,
        replace(engine.service, proof=proof, drain=drain(context, engine)),
        [*engine.needs, *(step.name for step in keys)],
        follows=[
            *_server_before(context),
            *([heard.name, *context.base("packages")] if proof else []),
        ],
    )
    verify = Step(
        context.part(f"{SERVICE}/verify"),
        transcription(context, engine, place, recording_file(context)),
        [recording.name, *context.base("packages")],
        [service.name],
    )
    recordings = {step.name: step for step in (recording, heard)}.values()
    found = [user, *engine.steps, *keys, *recordings, service, verify]
    if engine.service.unit_name != SPEACHES:
        signpost = _signpost(engine.service.unit)
        found.append(Step(context.part(f"{SERVICE}/signpost"), signpost, [service.name]))
    if not context.settings.keepModels and engine.models:
        found.append(_prune(context, service, verify))
    return found


def _servers(context: Context) -> list[MachinePlan]:
    """The machines of the domain that have the role, in the file's order."""
    return context.declaration.topology.with_role(SERVICE, context.machine.domain)


def _server_before(context: Context) -> list[str]:
    """The verification of the server before this one, where a gateway stands before both.

    They change one by one: the others serve meanwhile, and a change that fails stops at the first.
    """
    declaration, own = context.declaration, gateways(context)
    before: list[MachinePlan] = []
    for machine in declaration.topology.with_role(SERVICE):
        if machine == context.machine:
            break
        if any(each in own for each in gateways(Context(declaration, machine))):
            before.append(machine)
    return [each.resource(f"{SERVICE}/verify") for each in before[-1:]]


def _prune(context: Context, service: Step, verify: Step) -> Step:
    """What is on the volume, and no server of the domain needs: they share it.

    Only what is verified makes other models superfluous, and only once the last server has it.
    """
    servers = _servers(context)
    services = context.declaration.engine_services
    kept = dict.fromkeys(path for each in servers for path in services[each.full_name].models)
    return Step(
        context.part(f"{SERVICE}/prune"),
        Prune([f"{MODELS}/*", f"{VOLUME}/huggingface/hub/models--*"], list(kept)),
        [verify.name],
        [service.name],
        follows=[machine.resource(f"{SERVICE}/verify") for machine in servers],
    )


def _signpost(unit: str) -> Files:
    """What systemd says of `speaches`, the usual name, where another engine runs.

    Its start fails in words, and those stand in its journal. A unit of that name in /etc, Speaches'
    own, comes before it.
    """
    description = (
        f"Speaches is not the STT engine of this machine: {unit} is. See systemctl status {unit} "
        f"and journalctl -u {unit}"
    )
    sections: Sections = {
        "Unit": {"Description": description, "AssertPathExists": f"{UNITS}/{SPEACHES}"},
        "Service": {
            "Type": "oneshot",
            "DynamicUser": "yes",
            "ExecStart": "/bin/false",
            "CapabilityBoundingSet": "",
            **HARDENING,
            **WITHOUT_CARD,
        },
    }
    start = f"systemctl daemon-reload && {{ systemctl start {SPEACHES} 2>/dev/null || :; }}"
    file = File(f"/usr/local/lib/systemd/system/{SPEACHES}", unit_text(sections))
    return Files([file], [["sh", "-c", start]])


def _outputs(context: Context) -> dict[str, Any]:
    service = context.declaration.service_on(context.machine)
    model, started = (context.part(f"{SERVICE}/{part}") for part in ("model", "service"))
    engine = context.declaration.engine_services[context.machine.full_name]
    timed = [*(step.name for step in engine.steps if step.name == model), started]
    return {
        **client_outputs(context, stt_url(context.settings, context.machine), service.model.name),
        "stt_model": service.model.name,
        "stt_quantization": service.compute_type,
        "stt_check": Result(context.part(f"{SERVICE}/verify")),
        "stt_times": [Result(name, "took") for name in timed],
    }


def _warnings(context: Context) -> list[str]:
    found: list[str] = []
    settings, name = context.settings, context.machine.name
    service = context.declaration.service_on(context.machine)
    if not expected_words(settings, service):
        found.append(
            f"{name}: any words will do as an answer of {service.model.name}, so the verification "
            "proves little. Name a recording in its language, and its words: stt:check."
        )
    if not settings.asks_key:
        found.append(
            f"{name}: stt:authentication is none: whoever reaches "
            f"{stt_url(settings, context.machine)} can transcribe there, without a key."
        )
    if settings.host.is_loopback:
        found.append(
            f"{name}: with stt:host {settings.host} the STT service answers only inside {name}; so "
            "do the URLs of the outputs."
        )
    return found


def _bound(settings: Settings) -> dict[str, Bound]:
    host = str(settings.host)
    everywhere = "0.0.0.0"  # noqa: S104  # compared, not bound
    if host == everywhere:
        return {}
    return {"stt:port": Bound(host, f"stt:host is {show(host)}", f"set stt:host to {everywhere}")}


def _requires(settings: Settings) -> list[str]:
    engine = ENGINES.get(settings.engine)
    return [] if engine and engine.self_contained else ["base_system"]


ROLE = Role(
    SERVICE,
    "the STT service with OpenAI's endpoint, whichever engine runs it",
    steps,
    volumes={"models": VOLUME},
    caches={"wheels": WHEELS},
    secrets=keys,
    outputs=_outputs,
    requires=_requires,
    listens=lambda settings: {"stt:port": settings.port} if settings.enabled else {},
    bound=_bound,
    enabled=lambda settings: settings.enabled,
    warnings=_warnings,
    # What users notice of its service's restart depends on the engine (engines/restart.py).
    kept={API_KEY: "clients need another key"},
)
