"""No request is lost, whatever happens to the servers.

``STT_GATEWAY_FAULTS`` and ``STT_GATEWAY_REQUESTS`` say how many there are at least;
each run has other ones (``tests/seeds.py``).
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.gateway.faults import (
    WORK_SECONDS,
    Hashes,
    Load,
    Recordings,
    Row,
    break_servers,
    hung,
    killed,
    restarted,
)
from tests.gateway.gateway import KEY, StandIn, gateway, needs_nginx, needs_root, stand_ins
from tests.ports import free_port
from tests.seeds import FAULT_SEED
from tests.server.server import COMMAND, settings, wait

FAULTS = int(os.environ.get("STT_GATEWAY_FAULTS", "5"))
REQUESTS = int(os.environ.get("STT_GATEWAY_REQUESTS", "300"))

pytestmark = needs_nginx


def test_no_request_is_lost(tmp_path: Path) -> None:
    with stand_ins(tmp_path, 3) as servers:
        for server in servers:
            server.tell(seconds=WORK_SECONDS)
        with gateway(tmp_path, [server.port for server in servers]) as running:
            with Load(running, Hashes(FAULT_SEED)) as load:
                rows = break_servers(servers, FAULTS, FAULT_SEED)
                while len(load.answers) < REQUESTS:
                    time.sleep(0.1)
            status = running.status
            took = sorted(seconds for seconds, *_ in load.answers)
            size = sum(size for *_, size in load.answers)
            show(rows)
            print(
                f"{len(load.answers)} requests, {size / 1e9:.1f} GB, median "
                f"{statistics.median(took):.2f} s, longest {took[-1]:.1f} s; {status['totals']}"
            )
            assert load.wrong == {}, running.log[-6000:]
            assert status["totals"]["retried"] > 0, "no fault has met a request"
            assert status["totals"]["failed"] == 0


def show(rows: list[Row]) -> None:
    """The table of faults, with ``-s``."""
    for row in rows:
        print(f"{row.at:7.1f} s  {row.kind:15} server-{row.server}  {row.seconds} s")


@dataclass
class SttServer(StandIn):
    """This project's own server, with the same signals."""

    def start(self) -> None:
        directory = self.file.parent
        environment = settings(
            STT_PORT=str(self.port),
            STT_API_KEY_FILE=str(directory / "key"),
            STT_CPU_THREADS="1",
            OMP_WAIT_POLICY="PASSIVE",
        )
        with (directory / f"server-{self.port}.log").open("ab") as log:
            self.process = subprocess.Popen(
                COMMAND, env=environment, cwd=directory, stdout=log, stderr=log
            )

    def tell(self, **control: object) -> None:
        """It cannot be told anything."""


@pytest.fixture
def stt_servers(tmp_path: Path) -> Iterator[list[StandIn]]:
    (tmp_path / "key").write_text(KEY + "\n")
    with ExitStack() as stack:
        made: list[StandIn] = [SttServer(free_port(), tmp_path / "none") for _ in range(2)]
        for server in made:
            server.start()
            stack.callback(server.kill)
        for server in made:
            wait(lambda server=server: server.answers, 60)  # type: ignore[misc]
        yield made


@pytest.mark.seldom
@needs_root
def test_no_transcription_is_lost_or_mixed_up(tmp_path: Path, stt_servers: list[StandIn]) -> None:
    """Real servers and recordings, each with words of its own; of two servers one is left."""
    with gateway(tmp_path, [server.port for server in stt_servers]) as running:

        def both_work() -> None:
            """Seen twice: the watcher has noticed the fault before, and its end."""
            time.sleep(3)
            running.wait_for("server-0", "server-1")

        both_work()
        with Load(running, Recordings(FAULT_SEED), clients=4) as load:
            rows = break_servers(
                stt_servers,
                max(3, FAULTS // 2),
                FAULT_SEED,
                kinds=[killed, hung, restarted],
                between=both_work,
            )
        show(rows)
        print(f"{len(load.answers)} transcriptions; {json.dumps(running.status['totals'])}")
        assert load.wrong == {}, running.log[-6000:]
        assert running.status["totals"]["retried"] > 0, "no fault has met a request"
