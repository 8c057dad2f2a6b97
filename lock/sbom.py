"""The software bill of materials: CycloneDX 1.6, from the locks.

It says what may be fetched for any stack, not what one stack has. Packages that the locks of others
name (Speaches' uv.lock, a distribution) are not in it, and it says so.
"""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

from declaration.artifacts import Artifact, read_lock
from declaration.source_files import ROOT
from lock.catalogue import merged
from lock.licences import expression, purl
from lock.python import PROCESSORS, PYTHONS, installed, locks, packages


def document() -> dict[str, Any]:
    """The document; the same locks make the same one."""
    project = {"type": "application", "bom-ref": "incus-stt", "name": "incus-stt"}
    components = [*_packages(), *_artifacts(), *_modules()]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": project},
        "components": sorted(components, key=lambda each: str(each["bom-ref"])),
        "compositions": [{"aggregate": "incomplete", "assemblies": ["incus-stt"]}],
    }


def text() -> str:
    """The document as JSON."""
    return json.dumps(document(), indent=2)


def _sums(sums: list[str]) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": each} for each in sums]


def _properties(**values: str) -> list[dict[str, str]]:
    return [{"name": f"incus-stt:{name}", "value": each} for name, each in values.items() if each]


def _packages() -> list[dict[str, Any]]:
    """The packages of the pip locks, on the platforms that machines have."""
    found: dict[str, dict[str, Any]] = {}
    known = read_lock().licences
    for lock in locks():
        for package in packages((ROOT / lock).read_text(encoding="utf-8")):
            if not any(
                installed(package.marker, *where)
                for where in itertools.product(PYTHONS, PROCESSORS)
            ):
                continue
            url = purl(package)
            component = found.setdefault(
                url,
                {
                    "type": "library",
                    "bom-ref": url,
                    "name": url.partition("@")[0].rpartition("/")[2],
                    "version": package.version,
                    "purl": url,
                    **_licence(known.get(url, "")),
                    # Any of these files: one for each platform, and the source.
                    "externalReferences": [
                        {
                            "type": "distribution",
                            "url": url,
                            "hashes": _sums(sorted(package.sums)),
                        }
                    ],
                },
            )
            component["properties"] += _properties(lock=lock)
    return list(found.values())


def _licence(said: str) -> dict[str, Any]:
    """Where a package says nothing of its licence, that is said."""
    if not said:
        return {"properties": _properties(licence="the package does not name it")}
    spdx = expression(said)
    found = {"expression": spdx} if spdx else {"license": {"name": said}}
    return {"licenses": [found], "properties": []}


def _artifacts() -> list[dict[str, Any]]:
    return [_artifact(each) for each in merged(read_lock()).artifacts.values()]


def _artifact(artifact: Artifact) -> dict[str, Any]:
    purl = artifact.purl
    model = artifact.name.startswith("pkg:huggingface/") or "-model" in artifact.name
    component: dict[str, Any] = {
        "type": "machine-learning-model" if model else "application",
        "bom-ref": purl,
        "name": artifact.name.split("/", 1)[1],
        "purl": purl,
        "properties": _properties(verified=artifact.verified, sums=artifact.sums),
    }
    if artifact.version:
        component["version"] = artifact.version
    if spdx := expression(artifact.licence):
        component["licenses"] = [{"expression": spdx}]
    if "://" in artifact.source:
        reference = {"type": "distribution", "url": artifact.source}
        component["externalReferences"] = [reference]
    if files := [
        {"type": "file", "name": name, "hashes": _sums([each.sha256])}
        for name, each in artifact.files.items()
        if each.sha256
    ]:
        component["components"] = files
    return component


def _modules() -> list[dict[str, Any]]:
    """The Go modules of the Pulumi CLI, where it is built here; go.sum has their hashes."""
    file = "bootstrap/pulumi/go.mod"
    rows = re.findall(r"^\t(\S+\.\S+/\S+) (v\S+)", (ROOT / file).read_text(), re.MULTILINE)
    return [
        {
            "type": "library",
            "bom-ref": (purl := f"pkg:golang/{name.lower()}@{version.replace('+', '%2B')}"),
            "name": name,
            "version": version,
            "purl": purl,
            "properties": _properties(lock=file),
        }
        for name, version in dict.fromkeys(rows)
    ]
