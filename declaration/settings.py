"""The stack configuration (``stt:…``): every setting with its type, default, meaning and checks.

``Pulumi.yaml``'s schema and the tables of the documents are generated from the fields: run
``make generate`` after a change.
"""

from __future__ import annotations

import wave
from collections.abc import Mapping
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, ValidationError

from agent.words import words_of
from declaration.checks import (
    check_client,
    check_duration,
    check_expiry,
    check_image,
    check_key,
    check_language,
    check_ollama_model,
    check_password,
    check_pool,
    check_schedule,
    check_source,
    check_text,
    check_unique,
    seconds,
)
from declaration.connection import Connection, parse_connection
from declaration.custom import Custom, custom_problems
from declaration.describe import describe, known_keys, secret_paths
from declaration.field_types import (
    Flag,
    Port,
    StrictModel,
    Text,
    check_path,
    setting,
    text_problems,
)
from declaration.gateway import Gateway, gateway_tls_problems
from declaration.problems import DeclarationError, Problem, from_pydantic, show
from declaration.webui import Webui, tls_problems

#: The value of ``stt:quantization`` that leaves the choice to the planner.
AUTO = "auto"
#: How each certificate of a PEM file begins.
CERTIFICATE = "-----BEGIN CERTIFICATE-----"
Quantization = Literal[
    "auto",
    "float16",
    "int8_float16",
    "int8",
    "bfloat16",
    "int8_bfloat16",
    "int8_float32",
    "float32",
]


def _check_connection(value: str) -> str:
    parse_connection(value)
    return value


Source = Annotated[str, AfterValidator(check_source)]
Duration = Annotated[Text, AfterValidator(check_duration)]
#: What a duration may be, for the documents.
DURATION = "a duration with units (`90s`, `5m`, `1h30m`, `500ms`), `0`, or `-1` (it never unloads)"


class Check(StrictModel):
    """``stt:check``: what proves that the STT service transcribes."""

    recording: Annotated[Text, AfterValidator(check_path)] = setting(
        "",
        "What the service has to transcribe after each change; empty: three words of English",
        allowed="a WAV file, or empty",
    )
    words: Text | None = setting(
        None,
        "The words of the recording; without numbers, unless they are English, as a model may "
        "write digits. Empty: any words will do, and `stt_check` and `webui_check` "
        "say that nothing is proven; not set: the words of the built-in recording, if the "
        "model and `stt:language` allow English",
        allowed="words, or not set",
    )


class Limits(StrictModel):
    """``stt:limits``: what the STT service takes from its clients, all of them together."""

    audioMinutes: Annotated[int, Field(ge=1, le=1440, strict=True)] = setting(  # noqa: N815
        240, "Minutes that a recording may last; a longer one is refused (400)"
    )
    uploadMB: Annotated[int, Field(ge=1, le=10_000, strict=True)] = setting(  # noqa: N815
        500,
        "Size of a request in MiB; a larger one is refused (413). Waiting requests may take twice "
        "as much of the disk in all; then large ones are told to try again (429)",
    )
    waiting: Annotated[int, Field(ge=1, le=1000, strict=True)] = setting(
        32,
        "Requests that may wait while one is transcribed; further ones are told to try again (429)",
    )


class Ollama(StrictModel):
    """``stt:ollama``: the Ollama service."""

    port: Port = setting(11434, "Port on which Ollama listens")
    models: list[Annotated[str, AfterValidator(check_ollama_model)]] = setting(
        [],
        "Models to download",
        allowed="a list of names of Ollama's models, such as `[llama3.2:3b]`; of another registry "
        "with its address: `registry.example:5000/team/model:3b` (HTTPS)",
    )
    keepAlive: Duration = setting(  # noqa: N815  # Pulumi's case
        "5m", "How long an idle model stays loaded", allowed=DURATION
    )


class Snapshots(StrictModel):
    """``stt:snapshots``: Incus' own snapshots of the volumes that hold data."""

    schedule: Annotated[Text, AfterValidator(check_schedule)] = setting(
        "",
        "When Incus takes a snapshot of each volume with data (Open WebUI's, a gateway's); empty: "
        "never",
        allowed="`@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`, five fields as in cron "
        "(`0 3 * * *`), or empty",
    )
    expiry: Annotated[Text, AfterValidator(check_expiry)] = setting(
        "7d",
        "How long Incus keeps a snapshot; empty: until somebody removes it",
        allowed="numbers with units (`12H`, `7d`, `3w`, `1m 2d`), or empty",
    )


class Sources(StrictModel):
    """``stt:sources``: where an artifact comes from when not from its official place."""

    ollama: Source | None = setting(
        None, "Ollama's archive", allowed="a URL or a file; not set: Ollama's release"
    )
    owhisper: Source | None = setting(
        None,
        "An archive with `bin/owhisper-server`",
        allowed="a URL or a file; not set: it is built from its source",
    )
    speaches: Source | None = setting(
        None,
        "The git repository of Speaches",
        allowed="a URL or a bundle; not set: the official one",
    )
    python: Source | None = setting(
        None,
        "The Python 3.12 for Speaches, if the machine has none",
        allowed="a mirror for `uv` (URL) or an archive (file); not set: `uv`'s own place",
    )
    vosk: Source | None = setting(
        None, "Base URL of Vosk's models", allowed="a URL; not set: Vosk's site"
    )
    models: Source | None = setting(
        None, "Base URL of the model hub", allowed="a URL; not set: Hugging Face"
    )


class Settings(StrictModel):
    """All of ``stt:``. Field names are the keys of the stack configuration."""

    enabled: Flag = setting(
        True,
        "`false` removes the STT service and Open WebUI's link to it; the key and the models stay",
    )
    engine: Annotated[Text, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]*$")] = setting(
        "speaches", "The STT server", allowed="the name of an engine"
    )
    model: Text = setting(
        "",
        "The STT model; empty: the engine's default for the device",
        allowed="a short name (`tiny` … `large-v3`), a Hugging Face id (`owner/name`), or a "
        "directory with a model (`./models/mine`), as the engine takes it",
    )
    quantization: Quantization = setting(
        AUTO,
        "Compute type of the STT model; `auto`: the best that fits on the card. What the device "
        "cannot run is refused",
    )
    language: Annotated[Text, AfterValidator(check_language)] = setting(
        "",
        "Language if a request names none; empty: it is detected",
        allowed="a language code of Whisper, such as `en`, `fr`, `de`, or empty",
    )
    keepAlive: Duration = setting(  # noqa: N815  # Pulumi's case
        "5m", "How long an idle STT model stays loaded", allowed=DURATION
    )
    limits: Limits = setting(Limits(), "What the STT service accepts from all its clients together")
    check: Check = setting(Check(), "What proves that the STT service transcribes")
    force: Flag = setting(
        False,
        "`true` tries what does not fit on the card according to the planner; the preview warns",
    )
    custom: Custom = setting(Custom(), "An engine of your own, for `stt:engine: custom`")
    host: Annotated[IPv4Address, BeforeValidator(check_text)] = setting(
        IPv4Address("0.0.0.0"),  # noqa: S104  # in a machine of its own
        "Address on which the STT server listens",
        allowed="`0.0.0.0`, `127.0.0.1` or the machine's address",
    )
    port: Port = setting(8000, "Port on which the STT server listens")
    infra: Annotated[Text, StringConstraints(min_length=1), AfterValidator(check_path)] = setting(
        "infra.yml",
        "The topology: domains, machines, roles",
        allowed="a YAML file, relative to the project's directory",
    )
    environment: Text = setting(
        "",
        "The environment: the same topology several times on a host, each with domains, bridges, "
        "subnets and published ports of its own",
        allowed="one of `global.environments` in the topology; empty: the first",
    )
    aiAccess: Text = setting(  # noqa: N815
        "",
        "With `ai_access: exclusive` in the topology: the domain that may reach another "
        "domain's STT and Ollama services now; empty: `ai_access_default`",
        allowed="a domain that `policy` lets reach them, by its name in the topology; `nobody`; or "
        "empty",
    )
    connection: Annotated[Text, AfterValidator(_check_connection)] = setting(
        "local",
        "Where `incus` runs: on this machine, on a remote (`incus remote list`), or over SSH",
        allowed="`local`, `incus:REMOTE` or `ssh:USER@HOST`",
    )
    image: Annotated[Text, AfterValidator(check_image)] = setting(
        "images:ubuntu/24.04",
        "Image of the machines; if no image server can be reached, one of the host's own "
        "distribution stands in",
        allowed="an image that Incus knows, such as `images:debian/12`",
    )
    pool: Annotated[Text, AfterValidator(check_pool)] = setting(
        "default",
        "Storage pool of the machines and volumes",
        allowed="a pool of the host (`incus storage list`)",
    )
    sources: Sources = setting(
        Sources(), "Mirrors or local files for what is otherwise downloaded from its official place"
    )
    caBundle: Annotated[Text, AfterValidator(check_path)] = setting(  # noqa: N815
        "",
        "CA certificates that the machines trust as well, for networks with a private CA",
        allowed="a PEM file, or empty",
    )
    adopt: Flag = setting(
        False,
        "`true` takes over what somebody else made: a project or a bridge of that name, or what "
        "another stack owns",
    )
    keepModels: Flag = setting(  # noqa: N815
        True,
        "`true`: `destroy` leaves the volumes with models and data, and says how to remove them; "
        "`false`: it removes them, and a replaced model is removed once the new one is verified",
    )
    snapshots: Snapshots = setting(
        Snapshots(), "Snapshots of the volumes with data, taken and removed by Incus itself"
    )
    updates: Literal["daily", "weekly", "monthly", "off"] = setting(
        "weekly",
        "How often you run `make updates`, for the distribution's security updates in the "
        "machines; `make doctor` says when it is overdue",
    )
    protect: Flag = setting(
        False, "`true` refuses `destroy`, and every change that would delete something"
    )
    authentication: Literal["key", "none"] = setting(
        "key",
        "What clients of the STT service must send. With `none` there is no key, and whoever "
        "reaches the port can transcribe",
    )
    apiKey: Annotated[Text, AfterValidator(check_key)] = setting(  # noqa: N815
        "",
        "The key that clients must send; empty: one is made, and kept",
        allowed="8 to 200 of `A-Z a-z 0-9 . _ ~ + / = -`, or empty",
        secret=True,
    )
    clients: Annotated[
        list[Annotated[Text, AfterValidator(check_client)]], AfterValidator(check_unique)
    ] = setting(
        [],
        "Clients with a key of their own, in addition to that of `stt:apiKey`: each key is made "
        "once, and is refused once its line is removed",
        allowed="a list of names of `a-z 0-9 -`, such as `[phone, home-assistant]`",
    )
    adminPassword: Annotated[Text, AfterValidator(check_password)] = setting(  # noqa: N815
        "",
        "Password of Open WebUI's administrator; empty: one is made, and kept",
        allowed="8 to 72 bytes without control characters, or empty",
        secret=True,
    )
    ollama: Ollama = setting(Ollama(), "The Ollama service")
    webui: Webui = setting(Webui(), "Open WebUI and how browsers reach it")
    gateway: Gateway = setting(Gateway(), "One address in front of several STT servers")

    @property
    def keep_alive(self) -> int:
        """How long an idle STT model stays loaded, in seconds; -1: it never unloads."""
        return seconds(self.keepAlive)

    @property
    def asks_key(self) -> bool:
        """Whether clients of the STT service must send its key."""
        return self.authentication == "key"

    @property
    def host_connection(self) -> Connection:
        """Where ``incus`` runs."""
        return parse_connection(self.connection)


def conflicting_settings(settings: Settings) -> list[Problem]:
    """What is wrong with settings that are each allowed, but not together or not on this disk."""
    problems = custom_problems(settings.engine, settings.custom)
    problems += tls_problems(settings.webui) + gateway_tls_problems(settings.gateway)
    if settings.check.recording and not _is_wave(settings.check.recording):
        message = (
            f"{show(settings.check.recording)} is not a WAV file. Name one, or leave it empty."
        )
        problems.append(Problem("stt:check.recording", message))
    if settings.check.words and not words_of(settings.check.words):
        message = f"{show(settings.check.words)} has no word. Name the words, or leave it empty."
        problems.append(Problem("stt:check.words", message))
    problems += _bundle_problems(settings.caBundle)
    return problems


def _bundle_problems(path: str) -> list[Problem]:
    """What is wrong with the file of ``stt:caBundle``."""
    name = "Name a PEM file, or leave it empty."
    if path and not Path(path).is_file():
        return [Problem("stt:caBundle", f"{show(path)} is not a file. {name}")]
    problems = text_problems("stt:caBundle", path) if path else []
    if path and not problems and CERTIFICATE not in Path(path).read_text(encoding="utf-8"):
        problems.append(Problem("stt:caBundle", f"{show(path)} has no certificate. {name}"))
    return problems


def _is_wave(path: str) -> bool:
    try:
        with wave.open(path):
            return True
    except (OSError, EOFError, wave.Error):
        return False


def parse_settings(values: Mapping[str, Any]) -> Settings:
    """The settings in ``values`` (key without ``stt:`` to value).

    Raises:
        DeclarationError: with every problem found.
    """
    try:
        return Settings.model_validate(dict(values))
    except ValidationError as error:
        allowed = {each.key: each.allowed for each in describe(Settings)}
        problems = from_pydantic(
            error, "stt:", known_keys(Settings), secret_paths(Settings), allowed
        )
        raise DeclarationError(problems) from None
