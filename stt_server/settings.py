"""The server's settings: the environment, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pkgutil import iter_modules

#: The modules of ``recognizers/``, by name.
ENGINES = tuple(
    sorted(module.name for module in iter_modules([str(Path(__file__).with_name("recognizers"))]))
)
DEFAULTS = {
    "STT_ENGINE": "whisper",
    "STT_HOST": "127.0.0.1",
    "STT_PORT": "8000",
    "STT_MODEL_DIR": "",
    "STT_PROGRAM": "",
    "STT_MODEL_NAME": "",
    "STT_MODEL_ALIASES": "[]",
    "STT_DEVICE": "cpu",
    "STT_COMPUTE_TYPE": "",
    "STT_LANGUAGE": "",
    "STT_LANGUAGES": "[]",
    "STT_KEEP_ALIVE": "-1",
    "STT_CPU_THREADS": "0",
    "STT_AUDIO_MINUTES": "240",
    "STT_UPLOAD_MB": "500",
    "STT_WAITING": "32",
    "STT_API_KEY_FILE": "",
    "STT_CLIENT_KEYS_FILE": "",
}


class SettingsError(Exception):
    """A setting is missing, unknown, or cannot take effect."""


@dataclass(frozen=True)
class Settings:
    """The environment.

    ``model_name`` and ``aliases`` are what clients may send as ``model``; ``language`` is used
    where a request names none (empty: detect); ``languages``: those of a model that cannot tell
    itself; ``keep_alive`` in seconds, -1: never; ``cpu_threads`` 0: all; ``audio_minutes``,
    ``upload_mb`` (in MiB) and ``waiting`` limit a recording, a request, and how many requests wait
    for the one that is transcribed; ``program``: of an engine that is one of its own; ``api_key``
    empty: none is asked for; ``client_keys_file`` may come and go while the server runs
    (``clients.py``).
    """

    engine: str
    host: str
    port: int
    model_dir: Path
    program: str
    model_name: str
    aliases: tuple[str, ...]
    device: str
    compute_type: str
    language: str
    languages: tuple[str, ...]
    keep_alive: int
    cpu_threads: int
    audio_minutes: int
    upload_mb: int
    waiting: int
    api_key: str
    client_keys_file: str

    @property
    def names(self) -> tuple[str, ...]:
        """Every name of the model, its own first."""
        return tuple(dict.fromkeys((self.model_name, *self.aliases)))

    def require(self, *files: str) -> None:
        """See that the model has its files.

        Raises:
            SettingsError: one is missing.
        """
        for name in files:
            if not (self.model_dir / name).is_file():
                raise SettingsError(
                    f"STT_MODEL_DIR is {str(self.model_dir)!r}, which holds no {name}"
                )


def read_settings(environment: Mapping[str, str]) -> Settings:
    """The settings of ``environment``.

    Raises:
        SettingsError: naming the variable, its value, and what is allowed.
    """
    for name in environment:
        if name.startswith("STT_") and name not in DEFAULTS:
            raise SettingsError(f"{name} is unknown; known: {', '.join(DEFAULTS)}")
    values = {name: environment.get(name, default) for name, default in DEFAULTS.items()}
    for name in ("STT_HOST", "STT_MODEL_DIR", "STT_MODEL_NAME", "STT_COMPUTE_TYPE"):
        if not values[name]:
            raise SettingsError(f"{name} is not set")
    for name, allowed in (("STT_ENGINE", ENGINES), ("STT_DEVICE", ("cpu", "cuda"))):
        if values[name] not in allowed:
            raise SettingsError(f"{name} is {values[name]!r}; allowed: {', '.join(allowed)}")
    return Settings(
        engine=values["STT_ENGINE"],
        host=values["STT_HOST"],
        port=_number(values, "STT_PORT", 1, 65535),
        model_dir=Path(values["STT_MODEL_DIR"]),
        program=values["STT_PROGRAM"],
        model_name=values["STT_MODEL_NAME"],
        aliases=_names(values, "STT_MODEL_ALIASES"),
        device=values["STT_DEVICE"],
        compute_type=values["STT_COMPUTE_TYPE"],
        language=values["STT_LANGUAGE"],
        languages=_names(values, "STT_LANGUAGES"),
        keep_alive=_number(values, "STT_KEEP_ALIVE", -1, 10**9),
        cpu_threads=_number(values, "STT_CPU_THREADS", 0, 1024),
        audio_minutes=_number(values, "STT_AUDIO_MINUTES", 1, 1440),
        upload_mb=_number(values, "STT_UPLOAD_MB", 1, 10_000),
        waiting=_number(values, "STT_WAITING", 1, 1000),
        api_key=_key(values["STT_API_KEY_FILE"]),
        client_keys_file=values["STT_CLIENT_KEYS_FILE"],
    )


def _number(values: Mapping[str, str], name: str, least: int, most: int) -> int:
    text = values[name]
    digits = text.removeprefix("-") if least < 0 else text
    if not (digits.isascii() and digits.isdigit() and least <= int(text) <= most):
        raise SettingsError(f"{name} is {text!r}; allowed: {least} to {most}")
    return int(text)


def _names(values: Mapping[str, str], setting: str) -> tuple[str, ...]:
    text = values[setting]
    try:
        names = json.loads(text)
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise SettingsError(f"{setting} is {text!r}; allowed: a JSON list of names")
    return tuple(names)


def _key(file: str) -> str:
    if not file:
        return ""
    try:
        key = Path(file).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not ASCII"
        raise SettingsError(
            f"STT_API_KEY_FILE is {file!r}, which cannot be read: {reason}"
        ) from error
    if len(key.split()) != 1:
        raise SettingsError(f"STT_API_KEY_FILE is {file!r}, which does not hold exactly one key")
    return key
