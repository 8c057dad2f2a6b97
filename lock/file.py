"""How ``artifacts.lock`` is written: one line for each file, so that a diff is readable."""

from __future__ import annotations

import json
from typing import Any

from declaration.artifacts import Artifact, Lock, LockedFile


def text(lock: Lock) -> str:
    """The whole file."""
    artifacts = ",\n".join(_artifact(lock.artifacts[name]) for name in sorted(lock.artifacts))
    packages = ",\n".join(
        f"    {json.dumps(name)}: {json.dumps(sizes, sort_keys=True)}"
        for name, sizes in sorted(lock.packages.items())
    )
    licences = ",\n".join(
        f"    {json.dumps(name)}: {json.dumps(each)}"
        for name, each in sorted(lock.licences.items())
    )
    parts = [
        f'  "artifacts": [\n{artifacts}\n  ]',
        f'  "packages": {{\n{packages}\n  }}',
        f'  "licences": {{\n{licences}\n  }}',
    ]
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _artifact(artifact: Artifact) -> str:
    said: dict[str, Any] = {
        "name": artifact.name,
        "version": artifact.version,
        "licence": artifact.licence,
        "source": artifact.source,
        "verified": artifact.verified,
        "sums": artifact.sums,
    }
    lines = [f"      {json.dumps(key)}: {json.dumps(value)}" for key, value in said.items()]
    files = ",\n".join(
        f"        {json.dumps(name)}: {json.dumps(_file(each))}"
        for name, each in sorted(artifact.files.items())
    )
    lines.append(f'      "files": {{\n{files}\n      }}' if files else '      "files": {}')
    return "    {\n" + ",\n".join(lines) + "\n    }"


def _file(file: LockedFile) -> dict[str, Any]:
    return {"size": file.size, "sha256": file.sha256}
