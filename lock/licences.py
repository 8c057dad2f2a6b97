"""Licences of the Python packages that the pip locks pin, as their own metadata says them."""

from __future__ import annotations

import itertools
import re
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from packaging.metadata import RawMetadata, parse_email
from packaging.utils import parse_wheel_filename
from packaging.version import Version

from declaration.source_files import ROOT
from lock.program import run
from lock.python import PROCESSORS, PYTHONS, Package, installed, locks, packages, platforms

#: Classifiers whose words stand for one licence of SPDX; "BSD License" is one of several.
_CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "Boost Software License 1.0 (BSL-1.0)": "BSL-1.0",
    "GNU General Public License v3 (GPLv3)": "GPL-3.0-only",
    "GNU General Public License v3 or later (GPLv3+)": "GPL-3.0-or-later",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0-only",
    "GNU Lesser General Public License v3 or later (LGPLv3+)": "LGPL-3.0-or-later",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
    "zlib/libpng License": "Zlib",
}
#: Longer words are the text of a licence, and not its name.
_NAME_MAX = 100
#: How many packages pip is asked for at once: their wheels are on the disk together.
_AT_ONCE = 25


def purl(package: Package) -> str:
    """The package URL of a package of a lock."""
    name = re.sub(r"[-_.]+", "-", package.name).lower()
    return f"pkg:pypi/{name}@{str(Version(package.version)).replace('+', '%2B')}"


def pinned() -> dict[str, Package]:
    """Every package that a lock pins for a platform that machines have, by its package URL."""
    every = [
        each for lock in locks() for each in packages((ROOT / lock).read_text(encoding="utf-8"))
    ]
    wheres = list(itertools.product(PYTHONS, PROCESSORS))
    return {purl(each): each for each in every if any(installed(each.marker, *at) for at in wheres)}


def licences(known: Mapping[str, str]) -> dict[str, str]:
    """The licence of every package; of those that are not ``known``, pip fetches a wheel.

    Empty: its metadata does not name one. Nothing is known either of what has no wheel here.
    """
    every = pinned()
    found = {name: known.get(name, "") for name in every}
    missing = {name: each for name, each in every.items() if name not in known}
    for python, processor in itertools.product(PYTHONS, PROCESSORS):
        names = [n for n, each in missing.items() if installed(each.marker, python, processor)]
        for start in range(0, len(names), _AT_ONCE):
            batch = [missing[name] for name in names[start : start + _AT_ONCE]]
            for name, metadata in _fetched(batch, python, processor):
                found[name] = licence(metadata)
                missing.pop(name, None)
    return found


def _fetched(
    wanted: Sequence[Package], python: str, processor: str
) -> Iterator[tuple[str, RawMetadata]]:
    """The metadata of packages, as far as they have a wheel for these."""
    with tempfile.TemporaryDirectory() as place:
        words = ["--quiet", "--disable-pip-version-check", "--no-deps", "--dest", place]
        words += ["--only-binary", ":all:", "--python-version", python]
        words += [f"--platform={each}" for each in platforms(processor)]
        names = [f"{each.name}=={each.version}" for each in wanted]
        pip = [sys.executable, "-m", "pip", "download", *words, *names]
        print(f"lock: asking {len(wanted)} packages for their licences", file=sys.stderr)
        done = run(pip, "pip was to download packages for their licences", capture_output=True)
        for file in Path(place).glob("*.whl"):
            yield _read(file)
    if done.returncode and len(wanted) > 1:  # one of them has no wheel
        half = len(wanted) // 2
        yield from _fetched(wanted[:half], python, processor)
        yield from _fetched(wanted[half:], python, processor)


def _read(wheel: Path) -> tuple[str, RawMetadata]:
    """The package URL of a wheel, and its metadata."""
    with zipfile.ZipFile(wheel) as files:
        (name,) = [n for n in files.namelist() if n.count("/") == 1 and n.endswith("/METADATA")]
        metadata, _ = parse_email(files.read(name))
    package, version, _, _ = parse_wheel_filename(wheel.name)
    return f"pkg:pypi/{package}@{str(version).replace('+', '%2B')}", metadata


def licence(metadata: RawMetadata) -> str:
    """What a package says of its licence: an expression of SPDX, else its own words, else empty."""
    words = " ".join(metadata.get("license", "").split())
    named = [
        each.rpartition(" :: ")[2]
        for each in metadata.get("classifiers", [])
        if each.startswith("License :: ") and not each.endswith("OSI Approved")
    ]
    by_class = _CLASSIFIERS.get(named[0], "") if len(named) == 1 else ""
    for each in (metadata.get("license_expression", ""), words, by_class):
        if spdx := expression(each):
            return spdx
    if words and len(words) <= _NAME_MAX:
        return words
    return ", ".join(named)


def expression(text: str) -> str:
    """An expression of SPDX as it is written there; empty if the text is none."""
    try:
        return str(canonicalize_license_expression(text))
    except InvalidLicenseExpression:
        return ""
