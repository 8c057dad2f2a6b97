"""Fetch a model's files from the model hub.

``python fetch_model.py REPOSITORY[@REVISION] DIRECTORY NAME PATTERN…``: without a REVISION it is
the newest; NAME is what errors call the model; with an empty DIRECTORY the files go into the hub's
cache. It needs huggingface_hub and nothing of this package, so that the Python of another program
can run this file by itself.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import (
    GatedRepoError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)


def _download(repository: str, revision: str, directory: str, patterns: Sequence[str]) -> str:
    place = huggingface_hub.snapshot_download(
        repository,
        revision=revision or None,
        local_dir=directory or None,
        allow_patterns=list(patterns),
    )
    if revision and not directory:
        # Who looks into the cache without naming a revision finds this one.
        current = Path(place).parents[1] / "refs" / "main"
        current.parent.mkdir(exist_ok=True)
        current.write_text(Path(place).name, encoding="ascii")
    return place


def fetch(
    repository: str, revision: str, directory: str, name: str, patterns: Sequence[str]
) -> str:
    """The directory that holds the files; what was fetched before is not fetched again.

    Of a revision that the hub does not have, such as a mirror, the newest one comes instead: the
    files are compared with ``artifacts.lock`` in any case.

    Raises:
        SystemExit: there is no such model, or the download failed; it says what to do.
    """
    try:
        try:
            return _download(repository, revision, directory, patterns)
        except RevisionNotFoundError:
            if not revision:
                raise
            print(f"{repository}: no revision {revision} there; the newest one", file=sys.stderr)
            return _download(repository, "", directory, patterns)
    except GatedRepoError:
        sys.exit(f"stt:model {name}: {repository} asks for a login. Choose another model.")
    except RepositoryNotFoundError:
        sys.exit(f"stt:model {name}: there is no {repository} on the model hub. Check the name.")
    except Exception as error:  # each version of the library has its own for a lost connection
        said = (str(error).splitlines() or [""])[0]
        sys.exit(
            f"stt:model {name}: the download from {huggingface_hub.constants.ENDPOINT} failed "
            f"({type(error).__name__}: {said}). Check the machine's network and disk, or set "
            "stt:sources.models to a mirror; then run up again: it continues where it stopped."
        )


if __name__ == "__main__":
    if len(sys.argv) < 5:
        sys.exit("usage: fetch_model.py REPOSITORY[@REVISION] DIRECTORY NAME PATTERN…")
    wanted, _, at = sys.argv[1].partition("@")
    fetch(wanted, at, sys.argv[2], sys.argv[3], sys.argv[4:])
