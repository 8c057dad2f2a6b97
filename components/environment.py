"""Whether what a unit's environment says is read at all, by the very version that is installed.

The forerunner of this program set variables that no version of its engine reads; nobody noticed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from components.templates import render

#: Readers of a variable: ``module:Class`` with pydantic's settings, ``module:MAPPING`` by its keys;
#: ``text:package`` where a package's source names it; or one of these, which are no programs.
HUB = "text:huggingface_hub"
LINKER, CUDA, SYSTEM, PYTHON = "ld.so", "CUDA's driver", "every program", "Python"
#: Its library reads it from 1.32 on; older ones report nothing (docs/decisions/0011).
ONNX = "ONNX Runtime"
#: Files of this program, which its tests hold true.
OWN = "incus-stt"
UNCHECKED = (LINKER, CUDA, SYSTEM, PYTHON, ONNX, OWN)


def check_environment(
    python: str, user: str, program: str, readers: Mapping[str, str], path: str = ""
) -> str:
    """Shell commands that fail where a variable has no reader; ``path``: where its modules are."""
    asked = {name: reader for name, reader in readers.items() if reader not in UNCHECKED}
    return render(
        "check_environment.sh.j2",
        python=python,
        user=user,
        program=program,
        path=path,
        readers=json.dumps(asked, sort_keys=True),
    )
