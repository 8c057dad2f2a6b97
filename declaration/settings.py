"""The stack configuration (``stt:…``): schema and checks. Defaults stand in Pulumi.yaml alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StringConstraints,
    ValidationError,
)

from declaration.custom import Custom, custom_problems
from declaration.field_types import Flag, Port, StrictModel, Text, check_path
from declaration.languages import LANGUAGES
from declaration.problems import DeclarationError, Problem, from_pydantic, show
from declaration.webui import Webui, tls_problems

#: The value of ``stt:quantization`` that leaves the choice to the planner.
AUTO = "auto"
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

_OLLAMA_MODEL = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)*(:[\w.-]+)?")
_WORD = re.compile(r"[A-Za-z0-9_][\w.@%:/+-]*")
_KEY = re.compile(r"[A-Za-z0-9._~+/=-]{8,200}")
_DURATION = re.compile(r"-1|0|(\d+(\.\d+)?(ms|s|m|h))+")


@dataclass(frozen=True)
class Connection:
    """Where ``incus`` runs: ``local``, ``incus:REMOTE`` or ``ssh:DESTINATION``."""

    kind: Literal["local", "incus", "ssh"]
    target: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.target}" if self.target else self.kind


def parse_connection(text: str) -> Connection:
    """The connection that ``stt:connection`` names.

    Raises:
        ValueError: it names none.
    """
    if text == "local":
        return Connection("local")
    kind, _, target = text.partition(":")
    if kind == "ssh" and _WORD.fullmatch(target):
        return Connection("ssh", target)
    if kind == "incus" and _WORD.fullmatch(target):
        return Connection("incus", target)
    raise ValueError(
        f"{show(text)} is not allowed. Use local, incus:REMOTE (a name of `incus remote list`), or "
        "ssh:USER@HOST"
    )


def _check_text(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError(f"{show(value)} is no text. Write it in quotes")
    return value


def _check_connection(value: str) -> str:
    parse_connection(value)
    return value


def _check_language(value: str) -> str:
    if value and value not in LANGUAGES:
        norwegian = ' For Norwegian write "no" in quotes: YAML reads no as false.'
        raise ValueError(
            f"{show(value)} is no language code of Whisper. Use one such as en, fr, de, or leave "
            f"it empty to detect the language.{norwegian if value == 'false' else ''}"
        )
    return value


def _check_key(value: str) -> str:
    if value and not _KEY.fullmatch(value):
        raise ValueError(
            "is not usable as a key (its value is not shown). "
            "Use 8 to 200 of A-Z a-z 0-9 . _ ~ + / = -"
        )
    return value


def _check_password(value: str) -> str:
    length = len(value.encode())
    if value and (not value.isprintable() or not 8 <= length <= 72):
        raise ValueError(
            "is not usable as a password (its value is not shown). "
            "Use 8 to 72 bytes without control characters"
        )
    return value


def _check_image(value: str) -> str:
    if not _WORD.fullmatch(value):
        raise ValueError(f"{show(value)} names no image. Use one such as images:ubuntu/24.04")
    return value


def _check_pool(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", value):
        raise ValueError(f"{show(value)} names no storage pool. See `incus storage list`")
    return value


def _check_source(value: str) -> str:
    if not value or value.startswith("-") or re.search(r"[\s\x00-\x1f]", value):
        raise ValueError(f"{show(value)} is no address and no path. Use https://… or ./path")
    return value


def _check_ollama_model(value: str) -> str:
    if not _OLLAMA_MODEL.fullmatch(value):
        raise ValueError(f"{show(value)} names no model of Ollama. Use one such as llama3.2:3b")
    return value


def _check_duration(value: str) -> str:
    if not _DURATION.fullmatch(value):
        raise ValueError(f"{show(value)} is no duration. Use one such as 5m, 0 or -1 (for ever)")
    return value


Source = Annotated[str, AfterValidator(_check_source)]
Duration = Annotated[Text, AfterValidator(_check_duration)]
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}


def seconds(duration: str) -> int:
    """A duration in whole seconds, at least one where it is more than none; -1: for ever."""
    if duration in ("-1", "0"):
        return int(duration)
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h)", duration)
    return max(1, round(sum(float(number) * _UNITS[unit] for number, unit in parts)))


class Ollama(StrictModel):
    """``stt:ollama``: the Ollama service."""

    port: Port = 11434
    models: list[Annotated[str, AfterValidator(_check_ollama_model)]] = Field(default=[])
    keepAlive: Duration = "5m"  # noqa: N815  # Pulumi's case


class Sources(StrictModel):
    """``stt:sources``: where an artifact comes from when not from its official place."""

    ollama: Source | None = None
    owhisper: Source | None = None
    speaches: Source | None = None
    python: Source | None = None
    vosk: Source | None = None
    models: Source | None = None


class Settings(StrictModel):
    """All of ``stt:``. Field names are the keys of the stack configuration."""

    enabled: Flag
    engine: Text
    model: Text
    quantization: Quantization
    language: Annotated[Text, AfterValidator(_check_language)]
    keepAlive: Duration  # noqa: N815  # Pulumi's case
    force: Flag
    custom: Custom
    host: Annotated[IPv4Address, BeforeValidator(_check_text)]
    port: Port
    infra: Annotated[Text, StringConstraints(min_length=1), AfterValidator(check_path)]
    connection: Annotated[Text, AfterValidator(_check_connection)]
    image: Annotated[Text, AfterValidator(_check_image)]
    pool: Annotated[Text, AfterValidator(_check_pool)]
    sources: Sources
    caBundle: Annotated[Text, AfterValidator(check_path)]  # noqa: N815  # Pulumi's case
    adopt: Flag
    keepModels: Flag  # noqa: N815
    protect: Flag
    apiKey: Annotated[Text, AfterValidator(_check_key)] = ""  # noqa: N815
    adminPassword: Annotated[Text, AfterValidator(_check_password)] = ""  # noqa: N815
    ollama: Ollama
    webui: Webui

    @property
    def keep_alive(self) -> int:
        """How long an idle STT model stays loaded, in seconds; -1: for ever."""
        return seconds(self.keepAlive)

    @property
    def where(self) -> Connection:
        """Where ``incus`` runs."""
        return parse_connection(self.connection)


def unfit(settings: Settings) -> list[Problem]:
    """What is wrong with settings that are each allowed, but not together or not on this disk."""
    problems: list[Problem] = []
    if settings.port == settings.ollama.port:
        problems.append(
            Problem(
                "stt:port",
                f"is {settings.port}, and so is stt:ollama.port; both services share a machine. "
                "Change one.",
            )
        )
    problems += custom_problems(settings.engine, settings.custom)
    problems += tls_problems(settings.webui)
    if settings.caBundle and not Path(settings.caBundle).is_file():
        problems.append(
            Problem(
                "stt:caBundle",
                f"{show(settings.caBundle)} is no file. Name a PEM file, or leave it empty.",
            )
        )
    return problems


_KEYS: dict[tuple[str | int, ...], list[str]] = {
    (): list(Settings.model_fields),
    ("sources",): list(Sources.model_fields),
    ("ollama",): list(Ollama.model_fields),
    ("webui",): list(Webui.model_fields),
    ("custom",): list(Custom.model_fields),
}


def parse_settings(values: Mapping[str, Any]) -> Settings:
    """The settings in ``values`` (key without ``stt:`` to value).

    Raises:
        DeclarationError: with every problem found.
    """
    try:
        return Settings.model_validate(dict(values))
    except ValidationError as error:
        raise DeclarationError(from_pydantic(error, "stt:", dict(_KEYS))) from None
