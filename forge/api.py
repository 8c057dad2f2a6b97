"""The part of GitHub's API that Forgejo and Gitea have in the same form."""

from __future__ import annotations

import json
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

#: Seconds that an answer may take.
_DEADLINE = 30
#: Both names of the same parameter: GitHub's, and Forgejo's and Gitea's, whose most is 50.
_PAGE = 50
_MOST_PAGES = 200
#: As whom each forge's own token writes.
OWN_NAMES = frozenset({"github-actions[bot]", "forgejo-actions", "gitea-actions"})


class ForgeError(Exception):
    """A request failed, or cannot be made; the text is for the operator."""


@dataclass(frozen=True)
class Forge:
    """A repository on a forge. ``url`` is the API's; ``names``: as whom ``token`` writes."""

    url: str
    repository: str
    token: str
    names: frozenset[str] = OWN_NAMES

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """What the API answers to a request below the repository.

        Raises:
            ForgeError: it refuses, or does not answer.
        """
        url = f"{self.url.rstrip('/')}/repos/{self.repository}/{path}"
        request = urllib.request.Request(  # noqa: S310  # the operator's own forge
            url,
            None if body is None else json.dumps(body).encode(),
            {
                "Accept": "application/json",
                "Content-Type": "application/json",
                "User-Agent": "incus-stt",
            },
            method=method,
        )
        # Does not go along where the answer is a redirection.
        request.add_unredirected_header("Authorization", f"Bearer {self.token}")
        place = f"{method} {url.partition('?')[0]}"
        try:
            with urllib.request.urlopen(request, timeout=_DEADLINE) as answer:  # noqa: S310
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            said = error.read(500).decode(errors="replace").strip()
            raise ForgeError(
                f"{place}: status {error.code}. May the job's token do this (permissions)? {said}"
            ) from error
        except (OSError, ValueError) as error:
            raise ForgeError(f"{place}: {error}") from error

    def every(self, path: str, **query: str) -> Iterator[Mapping[str, Any]]:
        """All entries of a list, page by page.

        A list that has no pages comes whole with each of them: one without news is the last.

        Raises:
            ForgeError: as ``call``.
        """
        seen: set[int] = set()
        for page in range(1, _MOST_PAGES + 1):
            size = {"per_page": str(_PAGE), "limit": str(_PAGE), "page": str(page)}
            entries = self.call("GET", f"{path}?{urllib.parse.urlencode({**query, **size})}")
            news = [entry for entry in entries or [] if entry["id"] not in seen]
            if not news:
                return
            seen.update(entry["id"] for entry in news)
            yield from news

    def is_own(self, entry: Mapping[str, Any]) -> bool:
        """Whether a comment or an issue is by this token; anybody can write a hidden marker."""
        return (entry.get("user") or {}).get("login") in self.names


def read_forge(environment: Mapping[str, str] = os.environ) -> Forge:
    """The forge of a workflow's environment.

    ``GITHUB_API_URL`` and ``GITHUB_REPOSITORY`` are set by all three; ``FORGE_TOKEN`` by the step;
    ``FORGE_USER`` where the token is a person's or a bot's.

    Raises:
        ForgeError: one is missing or cannot be right.
    """
    for name in ("GITHUB_API_URL", "GITHUB_REPOSITORY", "FORGE_TOKEN"):
        if not environment.get(name):
            raise ForgeError(f"{name} is not set. This runs in a workflow (docs/workflows.md).")
    repository = environment["GITHUB_REPOSITORY"]
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise ForgeError(f"GITHUB_REPOSITORY is {repository!r}; allowed: OWNER/NAME")
    user = environment.get("FORGE_USER", "")
    names = frozenset({user}) if user else OWN_NAMES
    return Forge(environment["GITHUB_API_URL"], repository, environment["FORGE_TOKEN"], names)
