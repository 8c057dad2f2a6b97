"""``python -m tests.gateway.measure_many [SERVERS]``: what a gateway of many servers costs.

All of them are one process that answers with a hash, so the gateway asks it as often as it would
ask as many. Processor time counts: the machine may do other things too.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from tests.gateway.gateway import gateway, stand_ins
from tests.gateway.measure_servers import worked

#: Seconds without requests, and requests after that, with bodies of a dictation's size.
QUIET, REQUESTS, BODY = 20, 300, bytes(640_000)


def main(servers: int) -> None:
    directory = Path(tempfile.mkdtemp())
    with stand_ins(directory, 1) as (one,), gateway(directory, [one.port] * servers) as front:
        assert front.watcher
        front.wait_for(*(f"server-{number}" for number in range(servers)))
        began, before = time.perf_counter(), worked(front.watcher.pid)
        time.sleep(QUIET)
        share = (worked(front.watcher.pid) - before) / (time.perf_counter() - began)
        before = worked(front.nginx.pid)
        for _ in range(REQUESTS):
            assert front.post(BODY).status_code == 200
        each = (worked(front.nginx.pid) - before) / REQUESTS
    print(
        f"{servers} servers: the watcher takes {share * 100:.1f} % of a core; nginx takes "
        f"{each * 1000:.1f} ms of one for a request of {len(BODY) // 1000} kB"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
