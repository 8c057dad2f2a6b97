"""Requests to services of the same machine: whether they are healthy."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from agent.machine import Machine


@dataclass(frozen=True)
class HealthRequest:
    """A request that a healthy service answers with one of ``statuses``.

    ``header_file`` holds one ``Name: value``. ``fields`` are what the JSON answer has to hold.
    ``decisive``: another status is a no for good, not a not yet. ``certificate``: a file with the
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
    """Status (0 where nobody answers) and body."""

    status: int
    body: str = ""

    @property
    def json(self) -> Any:
        """The body from JSON; None where it is something else."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


def header(machine: Machine, path: str) -> dict[str, str]:
    """The header in a file."""
    name, _, value = machine.path(path).read_text("ascii").strip().partition(": ")
    return {name: value}


def ask(machine: Machine, request: HealthRequest) -> Answer:
    """The answer to a request, without any proxy."""
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if urlsplit(request.url).scheme == "https":
        context = ssl.create_default_context()
        if request.certificate and machine.path(request.certificate).exists():
            context.load_verify_locations(machine.path(request.certificate))
        else:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        handlers.append(urllib.request.HTTPSHandler(context=context))
    opener = urllib.request.build_opener(*handlers)
    try:
        headers = header(machine, request.header_file) if request.header_file else {}
        asked = urllib.request.Request(request.url, method=request.method, headers=headers)  # noqa: S310  # http or https
        with opener.open(asked, timeout=request.timeout) as answer:
            return Answer(answer.status, answer.read().decode(errors="replace"))
    except urllib.error.HTTPError as error:
        return Answer(error.code, error.read(4096).decode(errors="replace"))
    except (OSError, ValueError):
        return Answer(0)


class RefusedError(Exception):
    """A service answers, and the answer is no."""


def healthy(machine: Machine, requests: Sequence[HealthRequest]) -> bool:
    """Whether all requests are answered as they should be.

    Raises:
        RefusedError: a decisive one was answered otherwise.
    """
    for request in requests:
        answer = ask(machine, request)
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
