"""``python -m lock [WORD…]`` renews the locks and prints the diff; ``python -m lock sbom``.

The words are uv's: ``--upgrade-package NAME``, ``--upgrade``. Without any, only what was added to a
``.in`` is new in a pip lock.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from dataclasses import replace

import declaration.interrupt  # noqa: F401  # Ctrl-C ends it with a line
from declaration.artifacts import FILE, Artifact, read_lock
from declaration.problems import DeclarationError
from declaration.source_files import ROOT
from declaration.venv import UV_ARTIFACT
from lock import file, python, sbom
from lock.catalogue import merged
from lock.licences import licences
from lock.program import HangsError
from lock.renew import NotReachedError, renew


def _say(text: str) -> None:
    print(f"lock: {text}", file=sys.stderr)


def _renewed(artifact: Artifact) -> Artifact:
    try:
        return renew(artifact)
    except NotReachedError as error:
        _say(f"kept as it was: {error}")
        return artifact


def _write(name: str, text: str) -> None:
    """Write what differs, and print how."""
    path = ROOT / name
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    if before != text:
        path.write_text(text, encoding="utf-8")
        old, new = before.splitlines(keepends=True), text.splitlines(keepends=True)
        sys.stdout.writelines(difflib.unified_diff(old, new, name, name, n=1))


def main(words: Sequence[str]) -> None:
    """Renew everything, or print the SBOM."""
    if list(words) == ["sbom"]:
        print(sbom.text())
        return
    lock = merged(read_lock())
    packages: dict[str, dict[str, int]] = {}
    uv = renew(lock.artifacts[UV_ARTIFACT.name])
    with python.uv([each.sha256 for each in uv.files.values()]) as program:
        for source in python.sources():
            _say(source)
            name = python.lock_of(source)
            # At once: others build on it.
            _write(name, python.compile_lock(program, source, words))
            packages[name] = python.download_sizes(program, name)
        for each in filter(lambda each: each.uv_project, lock.artifacts.values()):
            sizes = python.project_sizes(program, each) or lock.packages.get(each.purl, {})
            packages[each.purl] = dict(sizes)
    artifacts = {name: _renewed(each) for name, each in lock.artifacts.items()}
    found = licences(lock.licences)
    if unknown := [name for name, each in found.items() if not each]:
        _say(f"packages that do not name their licence: {', '.join(unknown)}")
    new = replace(lock, artifacts=artifacts, packages=packages, licences=found)
    _write(FILE.name, file.text(new))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (DeclarationError, HangsError, NotReachedError) as error:
        sys.exit(f"lock: {error}")
