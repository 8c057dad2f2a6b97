"""Which of the variables named as arguments the installed Speaches reads nowhere, as a JSON list.

Speaches' own Python runs it. ``APP`` is this project's wrapper around Speaches.
Usage: ``python - APP NAME…``.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from speaches.config import Config

#: What the system, Python, CUDA and OpenMP read, and ONNX Runtime from a later version on.
ELSEWHERE = frozenset(
    {
        "CUDA_DEVICE_ORDER",
        "HOME",
        "LD_LIBRARY_PATH",
        "OMP_WAIT_POLICY",
        "ORT_DISABLE_TELEMETRY",
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONPATH",
        "TMPDIR",
    }
)
#: Packages that read variables of their own.
PACKAGES = ("gradio", "huggingface_hub")


def of_settings(settings: Any, prefix: str = "") -> Iterator[str]:
    """The variables of a class of pydantic's; those of a nested one follow two underscores."""
    for name, field in settings.model_fields.items():
        variable = (field.alias or f"{prefix}{name}").upper()
        yield variable
        if hasattr(field.annotation, "model_fields"):
            yield from of_settings(field.annotation, f"{variable}__")


def source(package: str) -> str:
    """The text of a package's modules."""
    spec = importlib.util.find_spec(package)
    places = (spec and spec.submodule_search_locations) or []
    files = [file for place in places for file in sorted(Path(place).rglob("*.py"))]
    return "\n".join(file.read_text("utf-8", "replace") for file in files)


def main(app: str, names: list[str]) -> None:
    """Look for each name."""
    known = {*of_settings(Config), *ELSEWHERE}
    text = "\n".join([Path(app).read_text("utf-8"), *map(source, PACKAGES)])
    unread = [n for n in names if n not in known and f'"{n}"' not in text and f"'{n}'" not in text]
    print(json.dumps(unread))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
