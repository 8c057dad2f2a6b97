"""What a machine says of its services for `make status`."""

from __future__ import annotations

from typing import Any

from agent.status import status

STEP = "stt_server/service"
JOURNAL = """\
INFO:     10.0.0.9:1 - "POST /v1/audio/transcriptions HTTP/1.1" 200 OK
INFO:     10.0.0.9:1 - "POST /v1/audio/transcriptions HTTP/1.1" 401 Unauthorized
INFO:     127.0.0.1:1 - "POST /api/ps/small HTTP/1.1" 409 Conflict
INFO:     127.0.0.1:1 - "GET /health HTTP/1.1" 200 OK
[GIN] 2026/01/01 - 10:00:00 | 500 |  1.2s |  10.0.0.9 | POST     "/api/chat"
[GIN] 2026/01/01 - 10:00:00 | 200 |  1.2ms |  10.0.0.9 | GET      "/api/tags"
RuntimeError: CUDA out of memory
ERROR the second
INFO:     all is well
"""


def test_requests_for_work_and_the_last_error(agent: Any) -> None:
    agent.apply(STEP, agent.service("a"))
    (agent.systemd.state / "journal").write_text(JOURNAL)
    before = agent.tree()
    agent.systemd.log()
    (found,) = status(agent.machine)["services"].values()
    asked = [line for line in agent.systemd.log() if line.startswith("journalctl")]
    assert asked[0] == "journalctl --sync" and asked.count(asked[0]) == 1 < len(asked)
    assert (found["unit"], found["state"], found["restarts"]) == ("engine.service", "active", 0)
    assert (found["requests"], found["failed"]) == (3, 2)
    assert found["last_error"] == "ERROR the second"
    assert agent.tree() == before, "it changes nothing"


def test_requests_of_each_client(agent: Any) -> None:
    agent.apply(STEP, agent.service("a"))
    line = '{}10.0.0.9:1 - "POST /v1/audio/transcriptions HTTP/1.1" {}\n'
    sent = [("INFO:     ", 200), ("INFO:     phone@", 200), ("INFO:     phone@", 400)]
    sent += [("uvicorn.access:481:home-assistant@", 200)]
    journal = "".join(line.format(*each) for each in sent)
    journal += 'INFO:     phone@10.0.0.9:1 - "GET /v1/models HTTP/1.1" 200 OK\n'
    (agent.systemd.state / "journal").write_text(journal)
    (found,) = status(agent.machine)["services"].values()
    assert (found["requests"], found["failed"]) == (4, 1)
    assert found["clients"] == {
        "phone": {"requests": 2, "failed": 1},
        "home-assistant": {"requests": 1, "failed": 0},
    }


def test_a_service_that_was_stopped_and_one_that_is_quiet(agent: Any) -> None:
    agent.apply(STEP, agent.service("a"))
    (agent.systemd.state / "active" / "engine.service").unlink()
    (found,) = status(agent.machine)["services"].values()
    assert (found["state"], found["seconds"], found["last_error"]) == ("inactive", None, "")
    assert (found["requests"], found["failed"]) == (0, 0)


def test_a_machine_without_services(agent: Any) -> None:
    assert status(agent.machine) == {"services": {}}


def test_what_a_gateway_says_of_its_servers(agent: Any) -> None:
    agent.apply(STEP, agent.service("a"))
    (found,) = status(agent.machine)["services"].values()
    assert "gateway" not in found
    agent.apply(STEP, agent.service("a", reports={"gateway": "http://127.0.0.1:9/status"}))
    (found,) = status(agent.machine)["services"].values()
    assert found["gateway"] is None  # nobody answers there
