"""``stt:custom``: an engine of the operator's own, for ``stt:engine: custom``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from declaration.field_types import StrictModel, Text, check_path, setting, text_problems
from declaration.problems import Problem, show

#: Where the settings reach a unit of the operator's, as variables.
ENVIRONMENT_FILE = "/etc/incus-stt/custom.env"


def _check_health(value: str) -> str:
    if not re.fullmatch(r"/[\w./-]*", value):
        raise ValueError(f"{show(value)} is not a path of a URL. Use one such as /health")
    return value


class Custom(StrictModel):
    """``stt:custom``: the files of an engine of the operator's own."""

    install: Annotated[Text, AfterValidator(check_path)] = setting(
        "",
        "The script that installs the engine; run in the machine by `sh -eu`, as root",
        allowed="a file next to Pulumi; required with `stt:engine: custom`",
    )
    unit: Annotated[Text, AfterValidator(check_path)] = setting(
        "",
        "The systemd unit that runs the engine",
        allowed=f"a file with `User=` (not root) and `EnvironmentFile={ENVIRONMENT_FILE}`; "
        "required with `stt:engine: custom`",
    )
    files: Annotated[Text, AfterValidator(check_path)] = setting(
        "",
        "A directory that is copied into the machine before the script runs",
        allowed="a directory next to Pulumi, or empty",
    )
    health: Annotated[Text, AfterValidator(_check_health)] = setting(
        "/health",
        "The path that answers 200 once the engine works; it needs no key",
        allowed="a path of a URL, such as `/health`",
    )


def custom_problems(engine: str, custom: Custom) -> list[Problem]:
    """What is wrong with an engine of the operator's."""
    if engine != "custom":
        given = [name for name in ("install", "unit", "files") if getattr(custom, name)]
        message = f"has {', '.join(given)}, and stt:engine is {engine}. Set stt:engine to custom."
        return [Problem("stt:custom", message)] if given else []
    problems: list[Problem] = []
    for name in ("install", "unit"):
        path = getattr(custom, name)
        if not path:
            message = "is missing, and stt:engine is custom. Name a file."
            problems.append(Problem(f"stt:custom.{name}", message))
        elif not Path(path).is_file():
            problems.append(
                Problem(f"stt:custom.{name}", f"{show(path)} is not a file. Name one that is here.")
            )
        else:
            problems += text_problems(f"stt:custom.{name}", path)
    if custom.files and not Path(custom.files).is_dir():
        message = f"{show(custom.files)} is not a directory. Name one that is here."
        problems.append(Problem("stt:custom.files", message))
    if not problems:
        problems += _unit_problems(custom)
    return problems


def _unit_problems(custom: Custom) -> list[Problem]:
    text = Path(custom.unit).read_text(encoding="utf-8")
    if not re.search(rf"^EnvironmentFile=-?{re.escape(ENVIRONMENT_FILE)}$", text, re.MULTILINE):
        return [
            Problem(
                "stt:custom.unit",
                f"{show(custom.unit)} does not read the settings: add a line "
                f"EnvironmentFile={ENVIRONMENT_FILE} to its [Service].",
            )
        ]
    if not re.search(r"^User=(?!root$)\S+$", text, re.MULTILINE):
        return [
            Problem(
                "stt:custom.unit",
                f"{show(custom.unit)} would run as root. Add a line User=stt to its [Service].",
            )
        ]
    return []
