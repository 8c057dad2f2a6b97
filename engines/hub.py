"""Models of the model hub, in ``artifacts.lock``."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from agent.actions import Verify
from declaration.artifacts import Artifact, hub_name, known_sums, locked_version

#: Where the repositories of the model hub are.
HUB = "https://huggingface.co"


def hub_artifacts(
    repositories: Collection[str], licence: str, patterns: Sequence[str]
) -> list[Artifact]:
    """Repositories of the model hub, of which the files of these names are fetched.

    Which revision is fetched is in the lock file.
    """
    return [
        Artifact(
            hub_name(repository),
            "",
            licence,
            f"{HUB}/{repository}",
            "SHA-256 of the files that have one here, once they are fetched",
            patterns=patterns,
        )
        for repository in repositories
    ]


def at_revision(repository: str) -> str:
    """The repository with the revision that is locked, if any: ``owner/name@REVISION``."""
    revision = locked_version(hub_name(repository))
    return f"{repository}@{revision}" if revision else repository


def verify(repository: str, directory: str) -> list[Verify]:
    """What compares the fetched files of a repository with the lock file, where it has any."""
    sums = known_sums(hub_name(repository))
    return [Verify(directory, sums)] if sums else []
