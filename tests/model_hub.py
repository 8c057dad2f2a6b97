"""A small imitation of the model hub's HTTP interface, for machines that cannot reach the real one.

It serves directories as repositories, each in one revision. ``cut`` ends the next so many
downloads in the middle.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

CARD = """---
library_name: ctranslate2
pipeline_tag: automatic-speech-recognition
tags: [ctranslate2, automatic-speech-recognition]
---
A model for tests.
"""


class ModelHub(ThreadingHTTPServer):
    """The hub, serving ``repositories`` (id to directory) on ``address`` until ``close``."""

    daemon_threads = True

    def __init__(self, address: str, repositories: Mapping[str, Path]) -> None:
        super().__init__((address, 0), _Handler)
        self.repositories = repositories
        self.cut = 0
        self.requests: list[str] = []
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @cached_property
    def url(self) -> str:
        """What HF_ENDPOINT is to be."""
        return f"http://{self.server_address[0]!s}:{self.server_address[1]}"

    def revision(self, repository: str) -> str:
        """The one that a repository has."""
        return hashlib.sha1(repository.encode()).hexdigest()  # a git commit's form

    def close(self) -> None:
        """Stop serving."""
        self.shutdown()
        self.server_close()

    def files(self, repository: str) -> dict[str, bytes]:
        """A repository's files; its README says what Speaches wants to read."""
        found = {
            path.name: path.read_bytes()
            for path in self.repositories[repository].iterdir()
            if path.is_file()
        }
        return {**found, "README.md": CARD.encode()}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ModelHub

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class' name
        self.server.requests.append(format % args)

    def do_HEAD(self) -> None:  # the base class' name
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        parts = urlsplit(self.path).path.strip("/").split("/")
        if parts[:2] == ["api", "models"] and len(parts) >= 4:
            self._repository("/".join(parts[2:4]), parts[4:])
        elif len(parts) >= 5 and parts[2] == "resolve":
            self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]), body)
        else:
            self._missing("EntryNotFound")

    def _missing(self, code: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _repository(self, repository: str, rest: list[str]) -> None:
        if repository not in self.server.repositories:
            self._missing("RepoNotFound")
            return
        files, commit = self.server.files(repository), self.server.revision(repository)
        if rest[1:] and rest[1] not in ("main", commit):
            self._missing("RevisionNotFound")
            return
        entries = [
            {"type": "file", "path": n, "size": len(c), "oid": _tag(c)} for n, c in files.items()
        ]
        whole = {
            "id": repository,
            "modelId": repository,
            "sha": commit,
            "private": False,
            "tags": [],
            "downloads": 0,
            "siblings": [{"rfilename": name} for name in files],
        }
        content = json.dumps(entries if "tree" in rest else whole).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _file(self, repository: str, revision: str, name: str, body: bool) -> None:
        known = ("main", self.server.revision(repository))
        content = (
            self.server.files(repository).get(name)
            if repository in self.server.repositories and revision in known
            else None
        )
        if content is None:
            self._missing("EntryNotFound")
            return
        first = 0
        wanted = self.headers.get("Range", "")
        if wanted.startswith("bytes="):
            first = int(wanted.removeprefix("bytes=").split("-")[0])
        part = content[first:]
        self.send_response(206 if first else 200)
        self.send_header("ETag", f'"{_tag(content)}"')
        self.send_header("X-Repo-Commit", self.server.revision(repository))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(part)))
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if not body:
            return
        if self.server.cut and name == "model.bin":
            self.server.cut -= 1
            self.wfile.write(part[: len(part) // 3])
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
            return
        self.wfile.write(part)


def _tag(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()  # an ETag
