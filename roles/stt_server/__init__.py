"""Role ``stt_server``: the STT service, whichever engine runs it, and the proof that it works."""

from __future__ import annotations

import json
import shlex
import wave
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.drain import Drain
from agent.files import File
from agent.kinds.files import Files
from agent.kinds.prune import Prune
from agent.kinds.secret_files import SecretFile, SecretFiles
from agent.kinds.transcription import Transcription
from agent.kinds.upload import Upload
from agent.kinds.user import Directory, User
from agent.systemd import UNITS, unit_text
from declaration.secret import secret
from declaration.settings import Settings
from declaration.source_files import digest
from declaration.step import Step
from declaration.topology import MachinePlan
from declaration.unit import HARDENING, WITHOUT_CARD, Sections
from declaration.urls import stt_url
from declaration.venv import WHEELS
from engines import ENGINES, MODEL_ALIAS
from engines.service import (
    AUTHORIZATION,
    CLIENT_KEYS,
    HOME,
    KEY,
    KEY_ENVIRONMENT,
    MODELS,
    SERVICE,
    UID,
    USER,
    VOLUME,
    EngineContext,
    EngineService,
    header_file,
)
from roles.role import Context, Result, Role
from stack.checks import GATEWAY_ROLE
from stack.declare import SttService

#: What the verification posts, where ``stt:check`` names nothing else, and its words.
RECORDING, WORDS = "recordings/one_two_three.wav", "one two three"
#: How much of the words may be wrong: one of three.
ERROR_RATE = 0.34
#: The unit that documents and habits know the STT service by.
SPEACHES = "speaches.service"
#: The secret that clients have to send.
API_KEY = "stt_server/key"
#: The secret of each client that has a key of its own (``stt:clients``), before its name.
CLIENT_KEY = "stt_server/client/"


def _recording(context: Context) -> str:
    """The file that has to be transcribed."""
    return context.settings.check.recording or RECORDING


def recording_step(context: Context, role: str, source: str = "") -> tuple[str, Step]:
    """Where the recording is in the machine, and the step that brings it.

    Each role has its own: what one takes away with itself stays there for the other. ``source`` is
    that of ``stt:check`` where it is empty.
    """
    source = source or _recording(context)
    part = "recording" if source == _recording(context) else "own-recording"
    place = f"/opt/incus-stt/recording-{role}-{digest(Path(source))}.wav"
    upload = Upload(place, directory=False)
    return place, Step(context.part(f"{role}/{part}"), upload, source=source)


def expected_words(settings: Settings, service: SttService) -> str:
    """What the recording has to come back as; empty: any words will do."""
    if settings.check.words is not None:
        return settings.check.words
    known = service.model.known
    english = settings.language in ("", "en") and (known is None or "en" in known.languages)
    return WORDS if english and not settings.check.recording else ""


def engine_service(context: Context) -> EngineService:
    """The steps and the service of the configured engine in a machine."""
    declaration = context.declaration
    service = declaration.service_on(context.machine)
    engine = EngineContext(
        declaration.settings,
        service.device,
        service.model,
        service.compute_type,
        declaration.engine.ctranslate2 is not None,
        context.part,
        context.base("uv"),
    )
    return declaration.engine.service(engine)


def steps(context: Context) -> list[Step]:
    """User, engine, key, service, verification."""
    engine = engine_service(context)
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
    secrets = Step(
        context.part(f"{SERVICE}/secrets"), _secret_files(f"{SERVICE}/service"), [user.name]
    )
    keys = [secrets] if context.settings.asks_key else []
    if client_keys(context.settings):
        clients = _client_keys_file(context.settings)
        keys.append(Step(context.part(f"{SERVICE}/clients"), clients, [user.name]))
    place, recording = recording_step(context, SERVICE)
    own_place, own_recording = recording_step(context, SERVICE, RECORDING)
    proof = _proof(context, engine, own_place, place)
    heard = own_recording if proof and proof.recording == own_place else recording
    service = Step(
        service_name,
        replace(engine.service, proof=proof, drain=_drain(context, engine)),
        [*engine.needs, *(step.name for step in keys)],
        follows=[
            *_server_before(context),
            *([heard.name, *context.base("packages")] if proof else []),
        ],
    )
    verify = Step(
        context.part(f"{SERVICE}/verify"),
        _transcription(context, engine, place, _recording(context)),
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
    """The verification of the server before this one, where a gateway stands before them all.

    They change one by one: the others serve meanwhile, and a change that fails stops at the first.
    """
    if not _gateways(context):
        return []
    servers = _servers(context)
    before = servers[: servers.index(context.machine)]
    return [each.resource(f"{SERVICE}/verify") for each in before[-1:]]


def _prune(context: Context, service: Step, verify: Step) -> Step:
    """What is on the volume, and no server of the domain needs: they share it.

    Only what is verified makes other models superfluous, and only once the last server has it.
    """
    servers = _servers(context)
    each = [engine_service(Context(context.declaration, machine)) for machine in servers]
    kept = dict.fromkeys(path for engine in each for path in engine.models)
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


def _secret_files(service: str) -> SecretFiles:
    """The key as the server, curl and systemd read it."""
    key = secret(API_KEY)
    return SecretFiles(
        [
            SecretFile(KEY, key, owner=f"{USER}:{USER}"),
            SecretFile(AUTHORIZATION, f"Authorization: Bearer {key}\n"),
            SecretFile(KEY_ENVIRONMENT, f"API_KEY={key}\n"),
        ],
        service,
    )


def client_keys(settings: Settings) -> dict[str, str]:
    """The name of the secret of each client that has a key of its own, by the client's name."""
    return {name: f"{CLIENT_KEY}{name}" for name in settings.clients if settings.asks_key}


def _client_keys_file(settings: Settings) -> SecretFiles:
    """The clients' keys as the server reads them, again whenever they change."""
    keys = {name: secret(key) for name, key in client_keys(settings).items()}
    text = json.dumps(keys, indent=2) + "\n"
    return SecretFiles([SecretFile(CLIENT_KEYS, text, owner=f"{USER}:{USER}")])


def _proof(
    context: Context, engine: EngineService, own: str, declared: str
) -> Transcription | None:
    """What a change has to transcribe, or the service before comes back.

    Behind a gateway a restart costs nobody anything, and it is the whole verification, of the
    recording ``declared``. Else it is this project's ``own``, and any words will do: it does not
    depend on ``stt:check``, whose change restarts nothing.
    """
    if context.declaration.engine.self_contained:
        return None
    if _gateways(context):
        return _transcription(context, engine, declared, _recording(context))
    asked = _transcription(context, engine, own, RECORDING)
    return replace(asked, words="", error_rate=0.0)


def _gateways(context: Context) -> list[MachinePlan]:
    return context.declaration.topology.with_role(GATEWAY_ROLE, context.machine.domain)


def _drain(context: Context, engine: EngineService) -> Drain | None:
    """How the server leaves the turn of the domain's gateway."""
    if not _gateways(context) or context.declaration.engine.self_contained:
        return None
    return Drain(stt_url(context.settings, context.machine).removesuffix("/v1") + "/ready")


def _transcription(
    context: Context, engine: EngineService, recording: str, source: str
) -> Transcription:
    """``recording`` is the place of the file ``source`` in the machine."""
    service = context.declaration.service_on(context.machine)
    with wave.open(source) as audio:
        seconds = audio.getnframes() / audio.getframerate()
    return Transcription(
        url=stt_url(context.settings, context.machine),
        model=service.model.name,
        recording=recording,
        seconds=round(seconds, 3),
        header_file=header_file(context.settings),
        unit=engine.service.unit,
        engine=context.settings.engine,
        device=service.device,
        evidence=engine.evidence,
        words=expected_words(context.settings, service),
        error_rate=ERROR_RATE,
    )


def curl_line(context: Context, url: str) -> str:
    """A line to try the service with; the key comes from the environment.

    It goes to curl by stdin: everybody on the computer sees a program's arguments. Pulumi shows
    150 characters of an output, so the line has no spaces and no scheme that it can do without.
    """
    recording = shlex.quote(_recording(context))
    own = context.declaration.engine.self_contained  # it may not know the alias
    name = context.declaration.service_on(context.machine).model.name
    model = f"--form-string model={shlex.quote(name)}" if own else f"-F model={MODEL_ALIAS}"
    key = 'echo "Authorization: Bearer $STT_API_KEY"|' if context.settings.asks_key else ""
    curl = "curl -H@-" if key else "curl"
    place = f"{url.removeprefix('http://')}/audio/transcriptions"
    return f"{key}{curl} -F file=@{recording} {model} {place}"


def _outputs(context: Context) -> dict[str, Any]:
    url = stt_url(context.settings, context.machine)
    service = context.declaration.service_on(context.machine)
    model = service.model.name
    names = [step.name for step in steps(context)]
    clients = {name: secret(key) for name, key in client_keys(context.settings).items()}
    timed = [context.part(f"{SERVICE}/{part}") for part in ("model", "service")]
    return {
        "stt_url": url,
        "stt_health_url": url.removesuffix("/v1") + "/health",
        "stt_model": model,
        "stt_quantization": service.compute_type,
        "stt_authentication": context.settings.authentication,
        **({"stt_api_key": secret(API_KEY)} if context.settings.asks_key else {}),
        **({"stt_client_keys": clients} if clients else {}),
        "stt_check": Result(context.part(f"{SERVICE}/verify")),
        "stt_times": [Result(name, "took") for name in timed if name in names],
        "stt_curl": curl_line(context, url),
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


def _requires(settings: Settings) -> list[str]:
    engine = ENGINES.get(settings.engine)
    return [] if engine and engine.self_contained else ["base_system"]


def api_key(settings: Settings) -> dict[str, str]:
    """The stack's own key, by its name; none where none is asked for."""
    return {API_KEY: settings.apiKey} if settings.asks_key else {}


def keys(settings: Settings) -> dict[str, str]:
    """The secrets that clients may send, by their names: the stack's key, and their own."""
    return api_key(settings) | dict.fromkeys(client_keys(settings).values(), "")


ROLE = Role(
    SERVICE,
    "the STT service with OpenAI's endpoint",
    steps,
    volumes={"models": VOLUME},
    caches={"wheels": WHEELS},
    secrets=keys,
    outputs=_outputs,
    requires=_requires,
    listens=lambda settings: {"stt:port": settings.port} if settings.enabled else {},
    enabled=lambda settings: settings.enabled,
    warnings=_warnings,
)
