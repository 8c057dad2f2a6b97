"""What publishers say of their files: sizes, sums, and the newest revision of a model.

What cannot be reached stays as it was, and is named.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import replace
from fnmatch import fnmatchcase
from http.client import HTTPException
from pathlib import Path
from typing import Any

from declaration.artifacts import Artifact, LockedFile
from declaration.venv import UV_ARTIFACT
from engines.hub import HUB
from lock.program import run

#: Where the numbers in the lock file are from, in its own words.
_PUBLISHER, _COMPUTED = "the publisher", "computed from the file"
#: Of the files of a model that the hub has no sum of: larger ones have one.
_SMALL = 20_000_000
_TIMEOUT = 30


class NotReachedError(Exception):
    """A publisher's site did not answer, or not as it should."""


def renew(artifact: Artifact, hub: str = HUB) -> Artifact:
    """The artifact with what its publisher says of it now.

    Raises:
        NotReachedError: it says nothing.
    """
    try:
        if artifact.name == UV_ARTIFACT.name:
            return _wheels(artifact)
        if not artifact.patterns:
            return artifact
        if artifact.name.startswith("pkg:huggingface/"):
            return _repository(artifact, hub)
        if artifact.listing:
            return _listed(artifact)
        return _computed(artifact)
    except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
        raise NotReachedError(f"{artifact.name}: {error}") from None


def _open(url: str, method: str = "GET") -> Any:
    request = urllib.request.Request(url, method=method)  # noqa: S310  # addresses of this program
    return urllib.request.urlopen(request, timeout=_TIMEOUT)  # noqa: S310


def _read(url: str) -> bytes:
    with _open(url) as answer:
        return bytes(answer.read())


def _size(url: str) -> int:
    with _open(url, "HEAD") as answer:
        return int(answer.headers.get("Content-Length") or 0)


def _repository(artifact: Artifact, hub: str) -> Artifact:
    """A repository of the model hub: its newest revision, and its files."""
    repository = artifact.name.removeprefix("pkg:huggingface/")
    said = json.loads(_read(f"{hub}/api/models/{repository}?blobs=true"))
    files: dict[str, LockedFile] = {}
    for each in said["siblings"]:
        name = each["rfilename"]
        if not any(fnmatchcase(name, pattern) for pattern in artifact.patterns):
            continue
        large, size = each.get("lfs"), int(each.get("size") or 0)
        if large:
            sha256 = large["sha256"]
        elif size <= _SMALL:
            path = urllib.parse.quote(f"{repository}/resolve/{said['sha']}/{name}")
            body = _read(f"{hub}/{path}")
            size, sha256 = len(body), hashlib.sha256(body).hexdigest()
        else:
            sha256 = ""
        files[name] = LockedFile(size, sha256)
    if not files:
        raise ValueError("it has none of the files that are fetched")
    return replace(artifact, version=said["sha"], sums=_PUBLISHER, files=files)


def _listed(artifact: Artifact) -> Artifact:
    """Files whose publisher has a list of sums, as ``sha256sum`` writes it."""
    rows = [line.split() for line in _read(artifact.listing).decode().splitlines()]
    # A list for one file may have no name.
    names = (row[1].lstrip("*").rsplit("/", 1)[-1] if row[1:] else "" for row in rows)
    sums = {name or artifact.patterns[0]: row[0] for name, row in zip(names, rows, strict=True)}
    base = artifact.listing.rsplit("/", 1)[0]
    files = {
        name: LockedFile(_size(f"{base}/{name}"), sums[name].lower()) for name in artifact.patterns
    }
    return replace(artifact, sums=_PUBLISHER, files=files)


def _computed(artifact: Artifact) -> Artifact:
    """One file without a list of sums: it is downloaded once, and not again."""
    (name,) = artifact.patterns
    if artifact.files.get(name, LockedFile()).sha256:
        return artifact
    print(f"lock: downloading {artifact.source} for its SHA-256", file=sys.stderr)
    digest, size = hashlib.sha256(), 0
    with _open(artifact.source) as answer:
        while block := answer.read(1 << 20):
            digest.update(block)
            size += len(block)
    return replace(artifact, sums=_COMPUTED, files={name: LockedFile(size, digest.hexdigest())})


def _wheels(artifact: Artifact) -> Artifact:
    """Uv's wheels for both processors, as pip finds them."""
    if artifact.files and all(each.size and each.sha256 for each in artifact.files.values()):
        return artifact
    files: dict[str, LockedFile] = {}
    for processor in ("x86_64", "aarch64"):
        with tempfile.TemporaryDirectory() as place:
            words = ["--quiet", "--disable-pip-version-check", "--no-deps", "--dest", place]
            words += ["--only-binary", ":all:", "--platform", f"manylinux2014_{processor}"]
            pip = [sys.executable, "-m", "pip", "download", *words, f"uv=={artifact.version}"]
            if run(pip, "pip was to download uv").returncode:
                raise ValueError("pip could not download it")
            (wheel,) = Path(place).iterdir()
            body = wheel.read_bytes()
            files[wheel.name] = LockedFile(len(body), hashlib.sha256(body).hexdigest())
    return replace(artifact, sums=_COMPUTED, files=files)
