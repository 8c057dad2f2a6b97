"""The one reader of a stack's file, for everything that runs without Pulumi.

It gives each setting the value that the program gets from Pulumi. Pulumi reads YAML 1.2 and hands
texts on: ``no`` is a text, ``08`` is 8, ``1e3`` is 1000. ``typed`` makes values of these texts,
here and where the program reads ``pulumi.Config``. Encrypted values stay unknown: ``ENCRYPTED``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import yaml

from declaration.describe import describe
from declaration.problems import DeclarationError, Problem, show, suggest
from declaration.settings import Settings
from declaration.yaml_values import YamlError, parse, text_of

PROJECT = "stt"
KINDS = {each.key: each.kind for each in describe(Settings) if not each.nested}
#: Settings that may only stand encrypted in a stack's file; also such within a group.
SECRETS = [each.key for each in describe(Settings) if each.secret]


class Encrypted(Enum):
    """A value that only Pulumi can read."""

    ENCRYPTED = "encrypted"


ENCRYPTED = Encrypted.ENCRYPTED


@dataclass(frozen=True)
class StackFile:
    """A stack's file: ``name`` for messages, and what it sets, by key without ``stt:``.

    ``values`` has no defaults; those are the fields' own. A value that is not of its setting's type
    is as it was written, so that the check can name it.
    """

    name: str
    values: Mapping[str, Any]

    def plain_values(self) -> dict[str, Any]:
        """The values without secrets, which are left at their defaults.

        Raises:
            DeclarationError: a setting is encrypted that does not have to be: what runs without
                Pulumi would take another value for it.
        """
        values = {key: _without_secrets(key, value) for key, value in self.values.items()}
        encrypted = [key for key, value in values.items() if _has_encrypted(value)]
        problems = [
            Problem(
                f"{PROJECT}:{key}",
                "is encrypted, and is read without Pulumi too. Set it in plain text: "
                f"pulumi config set {PROJECT}:{key} VALUE.",
            )
            for key in encrypted
            if key not in SECRETS
        ]
        if problems:
            raise DeclarationError(problems)
        return {key: value for key, value in values.items() if key not in encrypted}


def stack_directory(root: Path) -> Path:
    """Where the files of the stacks are."""
    # The settings' schema is in it, for which PyYAML's own parser takes ten times as long.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    project = yaml.load((root / "Pulumi.yaml").read_text(encoding="utf-8"), loader)  # noqa: S506  # a SafeLoader
    return root / str(project.get("stackConfigDir", "."))


def stack_names(directory: Path) -> list[str]:
    """The stacks that have a file there, in alphabetical order."""
    files = directory.glob("Pulumi.*.yaml")
    return sorted(file.name.removeprefix("Pulumi.").removesuffix(".yaml") for file in files)


def read_stack_file(root: Path, stack: str) -> StackFile:
    """The file of a stack; ``root`` is the directory of ``Pulumi.yaml``.

    Raises:
        DeclarationError: there is no such stack, its file cannot be read, is not YAML or not what
            Pulumi takes, or has a secret in plain text.
    """
    directory = stack_directory(root)
    names = stack_names(directory)
    if stack not in names:
        known = ", ".join(names) or "none"
        message = f"there is no stack {stack}. Stacks: {known}. Name one of them with STACK=NAME."
        raise _wrong("STACK", message)
    file = directory / f"Pulumi.{stack}.yaml"
    name = str(file.relative_to(root))
    try:
        content = parse(file.read_bytes())
    except OSError as error:
        raise _wrong(name, f"cannot be read: {error.strerror}.") from None
    except YamlError as error:
        raise _wrong(f"{name}, line {error.line}" if error.line else name, str(error)) from None
    return StackFile(name, _settings(name, content))


def _wrong(place: str, message: str) -> DeclarationError:
    return DeclarationError([Problem(place, message)])


def _settings(name: str, content: Any) -> dict[str, Any]:
    """The values of the file's ``config``."""
    if content is not None and not isinstance(content, dict):
        raise _wrong(name, f"is {show(content)}, and has to be a mapping with the key config.")
    config = (content or {}).get("config")
    if config is not None and not isinstance(config, dict):
        raise _wrong(name, f"config is {show(config)}, and has to be a mapping of settings.")
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    for written, given in (config or {}).items():
        namespace, _, key = written.replace(":config:", ":").rpartition(":")
        if not namespace and key not in KINDS:
            message = f"{show(written)} is not a key. Write {PROJECT}:NAME."
            problems.append(Problem(name, message + suggest(key, KINDS)))
        elif namespace in ("", PROJECT):
            if key in values:
                problems.append(Problem(f"{PROJECT}:{key}", f"is in {name} twice. Remove one."))
            values[key] = value_of(given, KINDS.get(key, "string"))
            problems += map(in_plain_text, plain_secrets(key, values[key]))
    if problems:
        raise DeclarationError(problems)
    return values


def plain_secrets(key: str, value: Any) -> list[str]:
    """The secrets in the value of a setting that are not encrypted."""
    if not isinstance(value, dict) or _is_encrypted(value):
        return [key] if key in SECRETS and value not in (ENCRYPTED, "") else []
    return [
        f"{key}.{name}"
        for name, each in value.items()
        if f"{key}.{name}" in SECRETS and each not in (None, "") and not _is_encrypted(each)
    ]


def _without_secrets(key: str, value: Any) -> Any:
    """A group without its secrets."""
    if not isinstance(value, dict) or _is_encrypted(value):
        return value
    return {name: each for name, each in value.items() if f"{key}.{name}" not in SECRETS}


def in_plain_text(key: str) -> Problem:
    """A secret that is not encrypted."""
    return Problem(
        f"{PROJECT}:{key}",
        "is in plain text (its value is not shown). Choose another one, and encrypt it: "
        f"{secret_command(key)}.",
    )


def secret_command(key: str) -> str:
    """What encrypts a setting; without a value on the command line it asks for one."""
    path = "--path " if "." in key else ""
    return f"pulumi config set --secret {path}{PROJECT}:{key}"


def value_of(given: Any, kind: str) -> Any:
    """A value of a stack's file as the program gets it from Pulumi; ``kind`` as in Pulumi.yaml."""
    if _is_encrypted(given):
        return ENCRYPTED
    if isinstance(given, dict | list):
        return given
    # Pulumi refuses a text where it wants an object, even a text of JSON.
    text = text_of(given)
    return text if kind in ("object", "array") else typed(text, kind)


def _is_encrypted(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"secure"} and isinstance(value["secure"], str)


def _has_encrypted(value: Any) -> bool:
    if isinstance(value, dict):
        return _is_encrypted(value) or any(_has_encrypted(each) for each in value.values())
    if isinstance(value, list):
        return any(_has_encrypted(each) for each in value)
    return value is ENCRYPTED


def typed(text: str, kind: str) -> Any:
    """A text that Pulumi passes on, by the type in ``Pulumi.yaml``.

    It stays a text where it is not of that type: the check of the settings names it.
    """
    if kind == "boolean":
        return {"true": True, "false": False}.get(text, text)
    if kind == "integer":
        return int(text) if re.fullmatch(r"-?(0|[1-9]\d{0,18})", text) else text
    if kind == "string":
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # Pulumi passes on what is nested as deeply as one likes
        return text
