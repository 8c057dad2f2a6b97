"""Requests to services of the same machine: whether they are healthy."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agent.machine import Machine

if TYPE_CHECKING:
    import urllib.request

#: Bytes of an answer that are read.
_LIMIT = 1 << 20


@dataclass(frozen=True)
class HealthRequest:
    """A request that a healthy service answers with one of ``statuses``.

    ``header_file`` holds one ``Name: value``. ``fields`` are what the JSON answer has to hold.
    ``decisive``: another status is final, not a reason to wait. ``certificate``: a file with the
    authority of an ``https`` address; empty: any certificate.
    """

    url: str
    method: str = "GET"
    statuses: Sequence[int] = field(default_factory=lambda: [200])
    header_file: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    decisive: bool = False
    certificate: str = ""
    #: How long the answer may take; s.
    timeout: int = 5


@dataclass(frozen=True)
class Answer:
    """Status (0 if nobody answers) and body."""

    status: int
    body: str = ""

    @property
    def json(self) -> Any:
        """The body from JSON; None if it is something else."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


def header(machine: Machine, path: str) -> dict[str, str]:
    """The header in a file."""
    name, _, value = machine.path(path).read_text("ascii").strip().partition(": ")
    return {name: value}


def ask(machine: Machine, request: HealthRequest, deadline: float = 3600) -> Answer:
    """The answer to a request within its ``timeout`` and ``deadline`` s, without any proxy."""
    # Not at the top: a check that asks nothing starts sooner.
    import http.client
    import urllib.error
    import urllib.request

    timeout = max(0.1, min(request.timeout, deadline))
    end = time.monotonic() + timeout
    try:
        headers = header(machine, request.header_file) if request.header_file else {}
        asked = urllib.request.Request(request.url, method=request.method, headers=headers)  # noqa: S310  # http or https
        opener = urllib.request.build_opener(*_handlers(machine, request))
        try:
            answer = opener.open(asked, timeout=timeout)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            body = b""
            while len(body) < _LIMIT and (part := answer.read1(1 << 16)):
                body += part
                if time.monotonic() > end:
                    return Answer(0)
            return Answer(answer.status, body.decode(errors="replace"))
    except (OSError, ValueError, http.client.HTTPException):
        return Answer(0)


def _handlers(machine: Machine, request: HealthRequest) -> list[urllib.request.BaseHandler]:
    import urllib.request

    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if request.url.startswith("https:"):
        import ssl

        context = ssl.create_default_context()
        if request.certificate and machine.path(request.certificate).exists():
            context.load_verify_locations(machine.path(request.certificate))
        else:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        handlers.append(urllib.request.HTTPSHandler(context=context))
    return handlers


class RefusedError(Exception):
    """A service answers, and the answer is no."""


def healthy(machine: Machine, requests: Sequence[HealthRequest], deadline: float = 3600) -> bool:
    """Whether all requests are answered as they should be, within ``deadline`` s.

    Raises:
        RefusedError: a decisive one was answered otherwise.
    """
    end = time.monotonic() + deadline
    for request in requests:
        answer = ask(machine, request, end - time.monotonic())
        if answer.status not in request.statuses:
            if request.decisive and answer.status:
                raise RefusedError(f"{request.url} answers {answer.status}: {answer.body[:300]}")
            return False
        if request.fields:
            said = answer.json
            if not isinstance(said, dict):
                return False
            if any(str(said.get(key)) != value for key, value in request.fields.items()):
                return False
    return True
