"""The service Open WebUI: how it is installed, wired, and known to work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from agent.files import File
from agent.http import HealthRequest
from agent.kinds.files import Files
from agent.kinds.packages import Packages
from agent.kinds.program import Program
from agent.kinds.run import Run
from agent.kinds.secret_files import SecretFile, SecretFiles
from agent.kinds.service import Service
from agent.kinds.upload import Upload
from agent.kinds.user import User
from declaration.artifacts import download_sizes
from declaration.secret import secret
from declaration.settings import Settings
from declaration.source_files import own_digest
from declaration.step import Step
from declaration.topology import MachinePlan
from declaration.unit import hardened_unit
from declaration.urls import (
    gateway_plain_url,
    ollama_url,
    stt_url,
    webui_origins,
)
from declaration.venv import venv_actions
from engines.service import MODEL_ALIAS
from roles.role import Context
from roles.stt_server.access import API_KEY
from roles.stt_server.verification import (
    ERROR_RATE,
    common_words,
    expected_words,
    recording_step,
)
from stack.checks import GATEWAY_ROLE, OLLAMA_ROLE, STT_ROLE
from stack.gateway import gateway_runs, nearest_behind, servers_behind
from stack.own_stt import OwnStt, own_stt

VERSION = "0.12.4"
NAME = "open_webui"
USER, UID = "webui", 903
VOLUME = "/srv/webui"
HOME = f"{VOLUME}/open-webui"
#: What a new version changes at its start: users and chats, and the index of documents.
_DATABASES = ("webui.db", "webui.db-wal", "webui.db-shm", "vector_db/chroma.sqlite3")
SECRETS = f"/etc/incus-stt/{NAME}/secrets.env"
ENVIRONMENT = "/etc/incus-stt/open-webui.env"
#: This project's programs for Open WebUI, with its lock file.
PROGRAMS = "roles/open_webui/machine"
#: The secrets of this role.
SESSION_KEY, ADMIN_PASSWORD = "open_webui/session-key", "open_webui/admin-password"  # names
STT_KEY = "open_webui/stt-key"
#: Where its users are sent who speak although STT is off: the address stands in what they read.
OFF = "speech-to-text-is-switched-off"
#: Seconds that it gets to start: it prepares its database.
_DEADLINE = 600

#: Variables whose values are also in the database, by the database's key (``open_webui.config``).
DECLARED = {
    "AUDIO_STT_ENGINE": "audio.stt.engine",
    "AUDIO_STT_OPENAI_API_BASE_URL": "audio.stt.openai.api_base_url",
    "AUDIO_STT_OPENAI_API_KEY": "audio.stt.openai.api_key",
    "AUDIO_STT_MODEL": "audio.stt.model",
    "ENABLE_OLLAMA_API": "ollama.enable",
    "OLLAMA_BASE_URLS": "ollama.base_urls",
    "ENABLE_SIGNUP": "ui.enable_signup",
}
#: Set at the first start only; then an administrator may choose otherwise.
FIRST = {
    "ENABLE_OPENAI_API": "false",
    "ENABLE_COMMUNITY_SHARING": "false",
    # Embeddings would need a model: documents go to the language model as they are.
    "RAG_EMBEDDING_ENGINE": "ollama",
    "BYPASS_EMBEDDING_AND_RETRIEVAL": "true",
    # Its tools go with every message, and a model that knows no tools answers with an error.
    "DEFAULT_MODEL_METADATA": '{"capabilities": {"builtin_tools": false}}',
}
#: A machine that is gone is an error in seconds, not in minutes: this machine's own network only.
_NETWORK = File(
    "/etc/sysctl.d/60-incus-stt.conf",
    "net.ipv4.tcp_syn_retries = 3\nnet.ipv4.tcp_retries2 = 5\n",
)

#: Open WebUI keeps what was dictated, and what it read aloud, for ever: here they go once they are
#: an hour old (routers/audio.py of 0.12.4). systemd looks once an hour, and not once a day.
_CLEANING = Files(
    [
        File(
            "/etc/tmpfiles.d/60-incus-stt-open-webui.conf",
            f"e {HOME}/data/cache/audio/transcriptions - - - 1h\n"
            f"e {HOME}/data/cache/audio/speech - - - 1h\n",
        ),
        File(
            "/etc/systemd/system/systemd-tmpfiles-clean.timer.d/60-incus-stt.conf",
            "[Timer]\nOnUnitActiveSec=\nOnUnitActiveSec=1h\n",
        ),
    ],
    [
        ["systemctl", "daemon-reload"],
        ["systemctl", "restart", "systemd-tmpfiles-clean.timer"],
    ],
)


def links(context: Context) -> tuple[str, str]:
    """The URLs of every Ollama, by semicolons, and of the STT service; empty if there is none.

    They are those of the domain. Where it has a gateway, that is the STT service; of several
    servers without one it is the machine's own, or the first. One of this stack that is switched
    off is none; that of another stack, or of somebody else, stays.
    """
    settings, topology = context.settings, context.declaration.topology
    ollamas = topology.with_role(OLLAMA_ROLE, context.machine.domain)
    ollama_link, stt_link = settings.webui.ollama_url, settings.webui.stt_url
    if ollama_link is None:
        ollama_link = ";".join(ollama_url(settings, machine) for machine in ollamas)
    if stt_link is None:
        stt_link = next((_url(settings, *each) for each in _asked(context)), "")
    own = own_stt(settings, topology, stt_link, context.machine)
    return ollama_link, "" if own and not own.runs else stt_link


def _url(settings: Settings, machine: MachinePlan, role: str) -> str:
    """Where Open WebUI asks an STT service of its domain."""
    return (gateway_plain_url if role == GATEWAY_ROLE else stt_url)(settings, machine)


def stt_key(context: Context) -> str:
    """The key that the STT service is sent: this stack's goes to its own services only."""
    settings, url = context.settings, context.settings.webui.stt_url
    if not url or own_stt(settings, context.declaration.topology, url, context.machine):
        return secret(API_KEY) if settings.asks_key else ""
    return secret(STT_KEY) if settings.webui.sttKey else ""


def programs() -> str:
    """Where this project's programs are in the machine."""
    return f"/opt/incus-stt/open-webui-programs-{own_digest(PROGRAMS)}"


def venv() -> str:
    """Where Open WebUI is installed."""
    return f"/opt/incus-stt/open-webui-{VERSION}-{own_digest(f'{PROGRAMS}/requirements.txt')}"


def variables(context: Context) -> dict[str, str]:
    """The environment, except for the secrets."""
    settings = context.settings
    secure = settings.webui.tls != "none"
    ollama, stt = links(context)
    return {
        "HOME": HOME,
        "DATA_DIR": f"{HOME}/data",
        "STATIC_DIR": f"{HOME}/static",
        "ENABLE_OLLAMA_API": "true" if ollama else "false",
        "OLLAMA_BASE_URLS": ollama,
        "AUDIO_STT_ENGINE": "openai",
        "AUDIO_STT_OPENAI_API_BASE_URL": stt or f"http://127.0.0.1:{settings.webui.port}/{OFF}",
        # Every engine answers to it: another model or engine does not restart Open WebUI.
        "AUDIO_STT_MODEL": MODEL_ALIAS,
        "WHISPER_LANGUAGE": settings.language,
        # The STT service takes every format and length, and transcribes an MP3 of it worse.
        "BYPASS_PYDUB_PREPROCESSING": "true",
        "ENABLE_SIGNUP": "true" if settings.webui.signup else "false",
        "CORS_ALLOW_ORIGIN": ";".join(webui_origins(settings, context.machine)),
        "WEBUI_SESSION_COOKIE_SECURE": "true" if secure else "false",
        "WEBUI_AUTH_COOKIE_SECURE": "true" if secure else "false",
        # All but dev close /docs and /openapi.json; prod also refuses what needs HTTPS without it.
        "ENV": "prod" if secure else "test",
        "OFFLINE_MODE": "true",
        "HF_HUB_OFFLINE": "1",
        "ORT_DISABLE_TELEMETRY": "1",
        "ANONYMIZED_TELEMETRY": "false",
        "DO_NOT_TRACK": "true",
        "SCARF_NO_ANALYTICS": "true",
        **FIRST,
    }


def _secret_variables(context: Context) -> dict[str, str]:
    return {
        "WEBUI_SECRET_KEY": secret(SESSION_KEY),
        "WEBUI_ADMIN_EMAIL": context.settings.webui.adminEmail,
        "WEBUI_ADMIN_PASSWORD": secret(ADMIN_PASSWORD),
        "AUDIO_STT_OPENAI_API_KEY": stt_key(context),
    }


def listen_host(settings: Settings) -> str:
    """Behind the proxy it listens on the loopback only: no password travels in the clear."""
    return "0.0.0.0" if settings.webui.tls == "none" else "127.0.0.1"  # noqa: S104  # published


def _service(context: Context) -> Service:
    settings, port = context.settings, context.settings.webui.port
    host = listen_host(settings)
    program, keys = venv(), " ".join(DECLARED.values())
    return Service(
        unit="open-webui",
        environment_file=ENVIRONMENT,
        variables=variables(context),
        sections=hardened_unit(
            description="Open WebUI",
            user=USER,
            before=f"{program}/bin/python {programs()}/declared.py {keys}",
            command=f"{program}/bin/open-webui serve --host {host} --port {port}",
            directory=HOME,
            writable=[HOME],
            environment_files=[ENVIRONMENT, SECRETS],
            start_seconds=_DEADLINE,
            port=port,
            computes=False,
        ),
        host=host,
        port=port,
        health=[HealthRequest(f"http://127.0.0.1:{port}/ready")],
        deadline=_DEADLINE,
        data=[f"{HOME}/data/{name}" for name in _DATABASES],
        version=VERSION,
    )


def _program(context: Context, upload: Step) -> Step:
    actions = venv_actions(
        "Open WebUI",
        venv(),
        f"{programs()}/requirements.txt",
        ">=3.11,<3.13",
        no_python=f"Open WebUI {VERSION} needs Python 3.11 or 3.12, and the machine has another. "
        "Choose an image that has it (stt:image), such as images:ubuntu/24.04 or images:debian/12.",
    )
    sizes = download_sizes(Path(PROGRAMS, "requirements.txt"))
    spec = Program(venv(), f"Open WebUI {VERSION}", actions, downloads=sizes)
    return Step(context.part(f"{NAME}/program"), spec, [upload.name, *context.base("uv")])


def steps(context: Context) -> list[Step]:
    """User, program, secrets, service, administrator."""
    user = Step(context.part(f"{NAME}/user"), User(USER, UID, HOME))
    upload = Step(context.part(f"{NAME}/programs"), Upload(programs()), source=PROGRAMS)
    packages = Step(
        context.part(f"{NAME}/packages"),
        Packages(["ca-certificates", "curl"]),
        context.base("packages"),
    )
    network = Step(
        context.part(f"{NAME}/network"),
        Files([_NETWORK], [["/lib/systemd/systemd-sysctl", _NETWORK.path]]),
    )
    cleaning = Step(context.part(f"{NAME}/cleaning"), _CLEANING)
    program = _program(context, upload)
    secrets = Step(
        context.part(f"{NAME}/secrets"),
        SecretFiles([SecretFile(SECRETS, variables=_secret_variables(context))], f"{NAME}/service"),
    )
    service = Step(
        context.part(f"{NAME}/service"),
        _service(context),
        [step.name for step in (user, upload, packages, network, program, secrets)],
        # At another port the STT service has to work first: if it goes back, so does this link.
        follows=[machine.resource(f"{role}/service") for machine, role in _asked(context)[:1]],
    )
    administrator = Step(
        context.part(f"{NAME}/administrator"),
        _as_webui(
            ["accounts.py", "set"],
            failure="The administrator of Open WebUI could not be made.",
            creates=f"{HOME}/data/.administrator",
            # Another account runs it again.
            values={
                "email": context.settings.webui.adminEmail,
                "password": secret(ADMIN_PASSWORD),
            },
        ),
        [service.name],
    )
    return [user, upload, packages, network, cleaning, program, secrets, service, administrator]


def _as_webui(
    words: Sequence[str],
    *,
    failure: str,
    resolution: str = "See journalctl -u open-webui in the machine.",
    creates: str = "",
    environment: dict[str, str] | None = None,
    values: dict[str, str] | None = None,
) -> Run:
    """One of this project's programs with the service's own user, environment and secrets."""
    script, *arguments = words
    return Run(
        [f"{venv()}/bin/python", f"{programs()}/{script}", *arguments],
        failure=failure,
        resolution=resolution,
        user=USER,
        directory=HOME,
        environment=environment or {},
        environment_files=[ENVIRONMENT, SECRETS],
        creates=creates,
        values=values or {},
    )


def verification(context: Context, last: Sequence[str]) -> list[Step]:
    """Sign in; where there is STT, let Open WebUI transcribe a recording."""
    _, stt_link = links(context)
    place, recording = recording_step(context, NAME)
    asked = _asked(context) if stt_link else []
    expected = {"STT_WORDS": _words(context), "STT_ERROR_RATE": str(ERROR_RATE)}
    look = f"See journalctl -u open-webui in {context.machine.name}"
    if asked:
        machine, _ = asked[0]
        near = machine.domain == context.machine.domain
        look += f", and that of the STT service in {machine.name if near else machine.full_name}"
    verify = _as_webui(
        [
            "verify.py",
            f"http://127.0.0.1:{context.settings.webui.port}",
            *([place] if stt_link else []),
        ],
        failure="The verification of Open WebUI failed (above: why).",
        resolution=f"{look}.",
        environment=expected if stt_link else {},
    )
    needs = [recording.name, context.part(f"{NAME}/administrator"), *last]
    after = [context.part(f"{NAME}/service")]
    # Another model is tried here too.
    needs += [machine.resource(f"{role}/verify") for machine, role in asked]
    if asked:
        (first, role), *rest = asked
        after.append(first.resource(f"{role}/service"))
        nearest = nearest_behind([machine for machine, _ in rest], first)
        after += [machine.resource(f"{STT_ROLE}/service") for machine in nearest]
    return [recording, Step(context.part(f"{NAME}/verify"), verify, needs, after)]


def _words(context: Context) -> str:
    """What the recording has to come back as through Open WebUI; empty: any words will do."""
    settings, asked = context.settings, _asked(context)
    if settings.webui.stt_url is not None and not asked:
        return expected_words(settings, None)  # somebody else's
    machines = [machine for machine, _ in asked]
    heard_by = [each for each in context.declaration.services if each.machine in machines]
    return common_words(settings, heard_by)


def _asked(context: Context) -> list[tuple[MachinePlan, str]]:
    """What answers to dictation, by machine and role: a gateway with its servers, or a server.

    It is what ``stt:webui.stt_url`` leads to, or without it the service of the domain; none where
    it is not this stack's, or is switched off.
    """
    settings, topology = context.settings, context.declaration.topology
    url = settings.webui.stt_url
    own = _nearest(context) if url is None else own_stt(settings, topology, url, context.machine)
    if not own or not own.runs:
        return []
    servers: list[MachinePlan] = []
    if own.role == GATEWAY_ROLE:
        servers = servers_behind(settings, topology, own.machine)
    return [(own.machine, own.role), *((server, STT_ROLE) for server in servers)]


def _nearest(context: Context) -> OwnStt | None:
    """The STT service of the domain: its gateway, or the machine's own server, or the first."""
    settings, topology = context.settings, context.declaration.topology
    if gateway := topology.nearest(GATEWAY_ROLE, context.machine):
        return OwnStt(gateway, GATEWAY_ROLE, gateway_runs(settings))
    server = topology.nearest(STT_ROLE, context.machine)
    return OwnStt(server, STT_ROLE, settings.enabled) if server else None
