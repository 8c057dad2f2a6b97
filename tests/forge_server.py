"""A server that answers as the API of GitHub, or of Forgejo and Gitea, does.

The differences are those that matter to ``forge``: GitHub says ``state`` of a commit status and has
pages of comments; Gitea and Forgejo say ``status`` and give all comments at once.
"""

from __future__ import annotations

import json
import re
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "a-token-of-the-tests"


@dataclass
class ForgeServer:
    """What a repository has, and how it is asked for."""

    kind: str
    url: str = ""
    me: str = ""
    comments: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    issues: list[dict[str, Any]] = field(default_factory=list)
    statuses: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    last_id: int = 0

    def __post_init__(self) -> None:
        self.me = self.me or {"github": "github-actions[bot]"}.get(
            self.kind, f"{self.kind}-actions"
        )

    def new_id(self) -> int:
        self.last_id += 1
        return self.last_id

    def add_comment(self, number: int, body: str, user: str = "") -> dict[str, Any]:
        made = {"id": self.new_id(), "body": body, "user": {"login": user or self.me}}
        self.comments.setdefault(number, []).append(made)
        return made

    def add_issue(self, title: str, body: str, user: str = "", **more: Any) -> dict[str, Any]:
        made = {
            "id": self.new_id(),
            "number": len(self.issues) + 100,
            "title": title,
            "body": body,
            "state": "open",
            "user": {"login": user or self.me},
            "pull_request": None,
            **more,
        }
        self.issues.append(made)
        return made

    # What each route does, by its method and a pattern of its path.

    def list_comments(self, number: str, query: dict[str, str]) -> Any:
        found = self.comments.get(int(number), [])
        return _page(found, query) if self.kind == "github" else found

    def post_comment(self, number: str, body: dict[str, Any]) -> Any:
        return self.add_comment(int(number), body["body"])

    def patch_comment(self, number: str, body: dict[str, Any]) -> Any:
        every = (each for found in self.comments.values() for each in found)
        entry = next(each for each in every if each["id"] == int(number))
        entry.update(body)
        return entry

    def post_status(self, commit: str, body: dict[str, Any]) -> Any:
        state = body["state"]
        kept = {**body, "id": self.new_id()}
        if self.kind != "github":
            kept["status"] = kept.pop("state")
        self.statuses.setdefault(commit, []).insert(0, kept)
        return {**kept, "state": state}

    def list_statuses(self, commit: str, query: dict[str, str]) -> Any:
        return _page(self.statuses.get(commit, []), query)

    def list_issues(self, query: dict[str, str]) -> Any:
        if "type" in query and self.kind == "github":  # an issue type, such as bug
            return []
        return _page([each for each in self.issues if each["state"] == query["state"]], query)

    def post_issue(self, body: dict[str, Any]) -> Any:
        return self.add_issue(**body)

    def patch_issue(self, number: str, body: dict[str, Any]) -> Any:
        entry = next(each for each in self.issues if each["number"] == int(number))
        entry.update(body)
        return entry

    def answer(self, method: str, target: str, body: Any, token: str) -> tuple[int, Any]:
        """Status and content."""
        if token != f"Bearer {TOKEN}":
            return 401, {"message": "Bad credentials"}
        path, _, query = target.partition("?")
        self.asked.append((method, path))
        given = {name: values[0] for name, values in urllib.parse.parse_qs(query).items()}
        routes: list[tuple[str, str, Callable[..., Any], Any]] = [
            ("GET", r"issues/(\d+)/comments", self.list_comments, given),
            ("POST", r"issues/(\d+)/comments", self.post_comment, body),
            ("PATCH", r"issues/comments/(\d+)", self.patch_comment, body),
            ("POST", r"statuses/(\w+)", self.post_status, body),
            ("GET", r"commits/(\w+)/statuses", self.list_statuses, given),
            ("GET", "issues", self.list_issues, given),
            ("POST", "issues", self.post_issue, body),
            ("PATCH", r"issues/(\d+)", self.patch_issue, body),
        ]
        for wanted, pattern, do, last in routes:
            found = re.fullmatch(f"/api/repos/owner/repo/{pattern}", path)
            if found and method == wanted:
                return (201 if method == "POST" else 200), do(*found.groups(), last)
        return 404, {"message": "Not Found"}


def _page(entries: list[dict[str, Any]], query: dict[str, str]) -> list[dict[str, Any]]:
    size, page = int(query.get("per_page", 30)), int(query.get("page", 1))
    return entries[(page - 1) * size : page * size]


@contextmanager
def forge_server(kind: str) -> Iterator[ForgeServer]:
    """It listens on the loopback."""
    forge = ForgeServer(kind)

    class Handler(BaseHTTPRequestHandler):
        def handle_all(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or b"null")
            token = self.headers.get("Authorization", "")
            status, content = forge.answer(self.command, self.path, body, token)
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PATCH = handle_all  # noqa: N815  # the names of http.server

        def log_message(self, *_: Any) -> None:
            """Nothing on the tests' terminal."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    forge.url = f"http://127.0.0.1:{server.server_port}/api"
    try:
        yield forge
    finally:
        server.shutdown()
        server.server_close()
