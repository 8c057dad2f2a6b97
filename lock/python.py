"""The pip locks: every ``requirements*.in`` of the repository, compiled with uv."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.markers import Marker
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import parse_wheel_filename

from declaration.artifacts import Artifact
from declaration.source_files import ROOT, tracked
from declaration.venv import uv_lock
from lock.program import run

#: Locks that are written by hand.
BY_HAND = ("bootstrap/pulumi/go.txt",)
PYTHONS = ("3.11", "3.12", "3.13")
PROCESSORS = ("x86_64", "aarch64")
#: The oldest glibc of an image that a machine is made from: Debian 12.
_GLIBC = 36
_COMPILE = ["--universal", "--python-version", PYTHONS[0], "--no-header", "--no-annotate"]


@dataclass(frozen=True)
class Package:
    """A package of a lock: ``marker`` says where it is installed; empty: everywhere."""

    name: str
    version: str
    marker: str
    sums: Sequence[str]


def sources() -> list[str]:
    """What the locks are compiled from; what others build on comes first."""
    found = [name for name in tracked(ROOT) if re.search(r"(^|/)requirements[\w-]*\.in$", name)]
    return sorted(found, key=lambda name: (name.count("/") > 0, name != "requirements.in", name))


def lock_of(source: str) -> str:
    """The lock that is compiled from a ``.in``."""
    return source.removesuffix("in") + "txt"


def overrides(source: str) -> list[str]:
    """The packages that a lock leaves out, as files that say why: its own, and those of its ``-r``.

    ``requirements-NAME.in`` has its own in ``overrides-NAME.txt`` beside it.
    """
    place = Path(source)
    own = place.with_name(place.name.replace("requirements", "overrides", 1)).with_suffix(".txt")
    found = [own.as_posix()] if (ROOT / own).exists() else []
    for other in re.findall(r"^-r (\S+\.in)$", (ROOT / source).read_text(), re.MULTILINE):
        found += overrides((place.parent / other).as_posix())
    return list(dict.fromkeys(found))


def locks() -> list[str]:
    """Every pip lock."""
    return sorted([*map(lock_of, sources()), *BY_HAND])


def packages(text: str) -> Iterator[Package]:
    """What a lock pins."""
    for block in re.findall(r"^\w.*\n(?:[ \t].*\n)*", f"{text}\n", re.MULTILINE):
        pin = re.match(r"([\w.-]+)(?:\[.*?\])?==([^\s;\\]+)(?:\s*;\s*([^\\\n]+))?", block)
        if pin:
            sums = re.findall(r"sha256:([0-9a-f]{64})", block)
            yield Package(pin[1], pin[2], (pin[3] or "").strip(), sums)


@contextmanager
def uv(sums: Collection[str]) -> Iterator[str]:
    """The uv that machines have too; pip fetches it, by hash."""
    with tempfile.TemporaryDirectory() as place:
        pins = Path(place, "uv.txt")
        pins.write_text(uv_lock(sums))
        words = ["--quiet", "--disable-pip-version-check", "--require-hashes", "--target", place]
        pip = [sys.executable, "-m", "pip", "install", *words, "-r", str(pins)]
        if run(pip, "pip was to install uv").returncode:
            sys.exit("lock: pip could not install uv (above: why). Check the network, then again.")
        yield str(Path(place, "bin", "uv"))


def compile_lock(program: str, source: str, words: Sequence[str] = ()) -> str:
    """The lock of a ``.in``; what the file has already stays, unless ``words`` say otherwise."""
    with tempfile.TemporaryDirectory() as place:
        made = Path(place, "requirements.txt")
        if (old := ROOT / lock_of(source)).exists():
            made.write_text(old.read_text())
        for override in overrides(source):
            words = ["--override", override, *words]
        _uv(program, [*_COMPILE, "--generate-hashes", *words, source, "-o", str(made)])
        return without_excluded(made.read_text())


def without_excluded(text: str) -> str:
    """A lock without what ``sys_platform == 'never'`` takes away."""
    blocks = re.findall(r"^\w.*\n(?:[ \t].*\n)*", text, re.MULTILINE)
    return "".join(block for block in blocks if "'never'" not in block.splitlines()[0])


def download_sizes(program: str, lock: str) -> dict[str, int]:
    """Bytes that a lock downloads, by Python and processor, as the package index tells them.

    What the index has for none of a Python's platforms is left out with this Python.

    Raises:
        SystemExit: a package has no wheel.
    """
    said = _uv(program, ["--universal", "--python-version", PYTHONS[0], *_PYLOCK, lock])
    listed = tomllib.loads(said)["packages"]
    if bare := ", ".join(each["name"] for each in listed if not each.get("wheels")):
        sys.exit(
            f"lock: {lock}: there is no wheel of {bare}, and nothing is built where this is "
            "installed. Do without it, and name it in an overrides*.txt (see lock/python.py)."
        )
    found = {
        f"{python} {processor}": _size(listed, python, processor)
        for python, processor in itertools.product(PYTHONS, PROCESSORS)
    }
    return {where: size for where, size in found.items() if size}


def project_sizes(program: str, artifact: Artifact) -> dict[str, int]:
    """Bytes that a program's own uv.lock downloads, by processor; empty: it cannot be reached."""
    with tempfile.TemporaryDirectory() as place:
        git = ["git", "-C", place]
        fetch = ["fetch", "--quiet", "--depth", "1", artifact.source, artifact.version]
        for words in (["init", "--quiet"], fetch, ["checkout", "--quiet", "FETCH_HEAD"]):
            if run([*git, *words], f"git was to {words[0]} {artifact.purl}").returncode:
                return {}
        words = ["--frozen", "--no-dev", "--no-emit-workspace", "--format", "pylock.toml"]
        words += ["--quiet", "--no-python-downloads", "--directory", place]
        listed = tomllib.loads(_run([program, "export", *words], artifact.purl))["packages"]
    python = artifact.uv_project
    found = {each: _size(listed, python, each) for each in PROCESSORS}
    return {where: size for where, size in found.items() if size}


_PYLOCK = ["--no-deps", "--generate-hashes", "--format", "pylock.toml"]


def _uv(program: str, words: Sequence[str]) -> str:
    command = [program, "pip", "compile", "--quiet", "--native-tls", *words]
    return _run(command, words[-1])


def _run(command: Sequence[str], what: str) -> str:
    # What the operator has told uv (an index, a proxy) is in its environment.
    done = run(command, f"uv was to resolve {what}", cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"lock: uv could not resolve {what} (above: why). Fix that, then again.")
    return str(done.stdout)


def installed(marker: str, python: str, processor: str) -> bool:
    """Whether a marker is true on Linux with this Python and processor."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.9",
        "platform_machine": processor,
        "platform_system": "Linux",
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
        "sys_platform": "linux",
        "os_name": "posix",
    }
    return not marker or Marker(marker).evaluate({**environment, "extra": ""})


def platforms(processor: str) -> list[str]:
    """The tags of the platforms whose wheels fit, the newest first."""
    old = [f"manylinux{year}_{processor}" for year in ("2014", "2010", "1")]
    new = [f"manylinux_2_{minor}_{processor}" for minor in range(_GLIBC, 4, -1)]
    return [*new, *old, f"linux_{processor}"]


def _tags(python: str, processor: str) -> dict[Tag, int]:
    """The tags of wheels that fit, with their ranks; the best is 0."""
    version = tuple(map(int, python.split(".")))
    where = platforms(processor)
    tags = [*cpython_tags(version, platforms=where)]
    tags += compatible_tags(version, f"cp{''.join(python.split('.'))}", where)
    return {tag: rank for rank, tag in reversed(list(enumerate(tags)))}


def _size(listed: Sequence[Mapping[str, Any]], python: str, processor: str) -> int:
    """All bytes; 0 if something is not there for these, or the index tells no size."""
    tags, total = _tags(python, processor), 0
    for package in listed:
        if not installed(package.get("marker", ""), python, processor):
            continue
        ranked = [
            (min(tags[tag] for tag in fitting), wheel.get("size", 0))
            for wheel in package.get("wheels", [])
            if (fitting := _wheel_tags(wheel["url"]) & tags.keys())
        ]
        source = package.get("sdist")
        size = min(ranked)[1] if ranked else source.get("size", 0) if source else 0
        if not size:
            return 0
        total += int(size)
    return total


def _wheel_tags(url: str) -> frozenset[Tag]:
    return parse_wheel_filename(os.path.basename(url).replace("%2B", "+"))[3]
