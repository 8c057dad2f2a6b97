"""A change of a service proves that it transcribes, and leaves a gateway's turn meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from agent.drain import DRAINING, Drain
from agent.kinds.secret_files import SecretFile, SecretFiles
from agent.kinds.transcription import Transcription
from agent.machine import StepError
from stt_server import ready

STEP = "stt/service"


def proof(agent: Any, text: str) -> Transcription:
    """What has to be transcribed; the fake server answers with the model that runs."""
    log, state = agent.systemd.state / "log", agent.systemd.state / "active"
    agent.systemd.program(
        "curl",
        f"#!/bin/sh\necho curl $([ ! -e '{agent.path(DRAINING)}' ] || echo draining) >>'{log}'\n"
        f"case $(cat '{state}/engine.service') in\n"
        f"*MUTE*) t=;; *WRONG*) t=no;; *) t='{text}';;\nesac\n"
        'printf \'{"text": "%s"}\\n200\' "$t"\n',
        ready=True,
    )
    return Transcription(
        *("http://stt/v1", "m", "/r.wav", 3.0, "", "engine", "Engine", "cpu"),
        words=text,
        error_rate=0.34,
        deadline=9,
    )


@pytest.mark.parametrize(
    ("model", "why"), [("MUTE", "returned no text"), ("WRONG", ' as "no": a word error rate')]
)
def test_one_that_does_not_transcribe_gives_way_to_the_one_before(
    agent: Any, model: str, why: str
) -> None:
    wanted = proof(agent, "one two three")
    agent.apply(STEP, agent.service("a", proof=wanted))
    with pytest.raises(StepError) as caught:
        agent.apply(STEP, agent.service(model, proof=wanted))
    assert why in caught.value.brief and "the previous one was restored" in caught.value.brief
    assert caught.value.resolution.startswith("Is it the right model (stt:model)")
    assert caught.value.unchanged
    assert 'MODEL="a"' in agent.systemd.running("engine")
    assert agent.drift() == [] and agent.leftovers() == []


def test_a_first_one_that_does_not_transcribe_is_taken_away(agent: Any) -> None:
    with pytest.raises(StepError, match="it was removed again"):
        agent.apply(STEP, agent.service("MUTE", proof=proof(agent, "one")))
    assert agent.systemd.active() == []


class _Server:
    """Answers as a server that drains does, with fewer requests each time it is asked."""

    def __init__(self, requests: int) -> None:
        self.requests = requests
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = f'{{"status": "draining", "requests": {outer.requests}}}'.encode()
                outer.requests = max(0, outer.requests - 1)
                self.send_response(503)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *words: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/ready"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def server() -> Iterator[_Server]:
    made = _Server(3)
    yield made
    made.http.shutdown()
    made.http.server_close()


def test_it_leaves_the_turn_until_it_has_proven_itself(agent: Any, server: _Server) -> None:
    wanted, drain = proof(agent, "one"), Drain(server.url, notice=0, deadline=9)
    # The first has no requests to wait for; it comes into turn once it is proven.
    agent.apply(STEP, agent.service("a", proof=wanted, drain=drain))
    assert server.requests == 3 and "curl draining" in agent.systemd.log()
    agent.apply(STEP, agent.service("b", proof=wanted, drain=drain))
    assert server.requests == 0  # it has waited for them
    assert not agent.path(DRAINING).exists()
    server.requests = 1
    with pytest.raises(StepError, match="the previous one was restored"):
        agent.apply(STEP, agent.service("MUTE", proof=wanted, drain=drain))
    assert not agent.path(DRAINING).exists()
    assert 'MODEL="b"' in agent.systemd.running("engine") and agent.drift() == []


def test_it_leaves_the_turn_for_another_key_too(agent: Any, server: _Server) -> None:
    agent.apply(STEP, agent.service("a", drain=Drain(server.url, notice=0, deadline=9)))

    def key(value: str) -> SecretFiles:
        return SecretFiles([SecretFile("/etc/key", value, owner=agent.owner)], STEP)

    agent.apply("stt/secrets", key("one"), secret=True)
    assert server.requests == 0  # it has waited for them
    server.requests = 2
    agent.apply("stt/secrets", key("one"), secret=True)
    assert server.requests == 2, "nothing restarts"
    agent.apply("stt/secrets", key("two"), secret=True)
    assert server.requests == 0 and not agent.path(DRAINING).exists()


def test_requests_that_do_not_end_are_not_waited_for_for_ever(agent: Any, server: _Server) -> None:
    server.requests = 10_000
    drain = Drain(server.url, notice=0, deadline=1)
    agent.apply(STEP, agent.service("a", drain=drain))
    began = time.monotonic()
    agent.apply(STEP, agent.service("b", drain=drain))
    assert time.monotonic() - began > 1 and server.requests > 9_000
    assert 'MODEL="b"' in agent.systemd.running("engine")


def test_a_server_that_was_left_out_of_turn_is_drift(agent: Any, server: _Server) -> None:
    service = agent.service("a", drain=Drain(server.url, notice=0, deadline=9))
    agent.apply(STEP, service)
    agent.path(DRAINING).touch()
    assert agent.drift() == ["in the gateway's turn: no -> yes"]
    agent.apply(STEP, service)
    assert agent.drift() == []


def test_the_server_looks_where_the_agent_writes() -> None:
    assert str(ready.DRAINING) == DRAINING
