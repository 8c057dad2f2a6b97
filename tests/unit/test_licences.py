"""Licences of Python packages: from their metadata into the lock file, and into the SBOM."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.metadata import parse_email

from declaration.artifacts import read_lock
from lock import licences, sbom
from lock.licences import licence, pinned, purl
from lock.python import Package

OSI = "Classifier: License :: OSI Approved"


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("License-Expression: MIT OR Apache-2.0\nLicense: whatever", "MIT OR Apache-2.0"),
        ("License: mit", "MIT"),
        (f"License: MIT License\n{OSI} :: MIT License", "MIT"),
        (f"{OSI}\n{OSI} :: Apache Software License", "Apache-2.0"),
        # What is ambiguous stays as the package has it.
        (f"{OSI} :: BSD License", "BSD License"),
        (f"License: Dual License\n{OSI} :: BSD License\n{OSI} :: MIT License", "Dual License"),
        (f"{OSI} :: MIT License\n{OSI} :: BSD License", "MIT License, BSD License"),
        ("License: NVIDIA Proprietary\n  Software", "NVIDIA Proprietary Software"),
        # The whole text is no name.
        (f"License: Permission is hereby granted{' and so on' * 20}", ""),
        ("Summary: nothing else", ""),
        ("License: ", ""),
    ],
)
def test_what_the_metadata_says(said: str, found: str) -> None:
    metadata, _ = parse_email(f"Metadata-Version: 2.4\nName: x\nVersion: 1\n{said}\n")
    assert licence(metadata) == found


def test_every_package_is_in_the_lock() -> None:
    """Where this fails: ``make lock``."""
    known = read_lock().licences
    assert known.keys() == pinned().keys()
    unknown = [name for name, each in known.items() if not each]
    assert len(unknown) < len(known) / 20, unknown


def wheel(directory: Path, name: str, tags: str, said: str) -> None:
    """A package of one file, as an index has it."""
    with zipfile.ZipFile(directory / f"{name}-1.0-{tags}.whl", "w") as files:
        place = f"{name}-1.0.dist-info"
        head = f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.0\n"
        files.writestr(f"{place}/METADATA", f"{head}{said}\n")
        files.writestr(f"{place}/WHEEL", f"Wheel-Version: 1.0\nTag: {tags}\n")
        files.writestr(f"{place}/RECORD", "")


@pytest.mark.seldom
def test_pip_fetches_what_is_new(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With pip itself, and a directory for an index."""
    wheel(tmp_path, "plain", "py3-none-any", "License: MIT")
    wheel(tmp_path, "later", "cp313-cp313-manylinux_2_28_x86_64", "License: ISC")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    every = [Package(name, "1.0", "", []) for name in ("plain", "later", "gone", "known")]
    monkeypatch.setattr(licences, "pinned", lambda: {purl(each): each for each in every})
    monkeypatch.setattr(licences, "PROCESSORS", ("x86_64",))
    monkeypatch.setattr(licences, "PYTHONS", ("3.12", "3.13"))
    known = {"pkg:pypi/known@1.0": "BSD-3-Clause", "pkg:pypi/not-any-more@1": "MIT"}
    assert licences.licences(known) == {
        "pkg:pypi/plain@1.0": "MIT",
        "pkg:pypi/later@1.0": "ISC",
        "pkg:pypi/gone@1.0": "",
        "pkg:pypi/known@1.0": "BSD-3-Clause",
    }


def test_the_sbom_has_them_and_says_where_it_has_none() -> None:
    document = sbom.document()["components"]
    found: dict[str, Any] = {each["bom-ref"]: each for each in document}
    known = read_lock().licences
    for name, said in known.items():
        component = found[name]
        properties = {each["name"] for each in component["properties"]}
        assert ("incus-stt:licence" in properties) is (not said)
        shown = [e.get("expression") or e["license"]["name"] for e in component.get("licenses", [])]
        assert shown == [said] * bool(said)
    assert found["pkg:pypi/faster-whisper@1.2.1"]["licenses"] == [{"expression": "MIT"}]
    names = [each for each in known.values() if each == "BSD"]
    assert names, "a licence by name only"
