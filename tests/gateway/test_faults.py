"""No request is lost, whatever happens to the servers.

``STT_GATEWAY_FAULTS`` and ``STT_GATEWAY_REQUESTS`` say how many there are at least,
``STT_GATEWAY_SEED`` which.
"""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

from tests.gateway.faults import WORK_SECONDS, Hashes, Load, break_servers
from tests.gateway.gateway import gateway, needs_nginx, stand_ins

FAULTS = int(os.environ.get("STT_GATEWAY_FAULTS", "5"))
REQUESTS = int(os.environ.get("STT_GATEWAY_REQUESTS", "300"))
SEED = int(os.environ.get("STT_GATEWAY_SEED", "1"))

pytestmark = needs_nginx


def test_no_request_is_lost(tmp_path: Path) -> None:
    with stand_ins(tmp_path, 3) as servers:
        for server in servers:
            server.tell(seconds=WORK_SECONDS)
        with gateway(tmp_path, [server.port for server in servers]) as running:
            with Load(running, Hashes(SEED)) as load:
                rows = break_servers(servers, FAULTS, SEED)
                while len(load.answers) < REQUESTS:
                    time.sleep(0.1)
            status = running.status
            took = sorted(seconds for seconds, *_ in load.answers)
            size = sum(size for *_, size in load.answers)
            for row in rows:
                print(f"{row.at:7.1f} s  {row.kind:15} server-{row.server}  {row.seconds} s")
            print(
                f"{len(load.answers)} requests, {size / 1e9:.1f} GB, median "
                f"{statistics.median(took):.2f} s, longest {took[-1]:.1f} s; {status}"
            )
            assert load.wrong == {}, running.log[-6000:]
            assert status["totals"]["retried"] > 0, "no fault has met a request"
            assert status["totals"]["failed"] == 0
