"""``python -m tests.server.measure_abuse [DIRECTORY]``: the table of docs/security.md.

DIRECTORY holds another version's ``stt_server``, to compare with. Every attack meets a server of
its own, as systemd starts it, whose other clients ask for its health and dictate meanwhile.
"""

from __future__ import annotations

import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.multilingual import SLOW, make_model
from tests.server import attacks
from tests.server.attacks import Watch
from tests.server.server import NAME, ROOT, Running, running

#: What systemd gives a service that names no limit.
DEFAULT_FILES = 1024
FILES = 65536


def hours(server: Running) -> str:
    return f"status {server.post(attacks.hours_in_a_packet()).status_code}"


def silence(server: Running) -> str:
    return f"status {server.post(attacks.silence(110)).status_code}"


def talk(server: Running) -> str:
    return f"status {server.post(attacks.talk(10)).status_code}"


def connections(server: Running) -> str:
    with attacks.idle_connections(server, 2000) as made:
        time.sleep(13)
        return f"{len(made)} made"


def uploads(server: Running) -> str:
    with attacks.leaving(server, attacks.talk(10)):
        time.sleep(1)
        found = attacks.at_once(12, lambda: attacks.send(server, attacks.file_of(200 << 20)))
    return f"statuses {dict(found)}"


def fields(server: Running) -> str:
    return str(
        dict(attacks.at_once(4, lambda: attacks.send(server, attacks.fields_of(400, 15 << 16))))
    )


def urlencoded(server: Running) -> str:
    kind = "application/x-www-form-urlencoded"
    return f"status {attacks.send(server, attacks.urlencoded(300 << 20), kind)}"


def crowd(server: Running) -> str:
    return f"statuses {dict(attacks.at_once(200, lambda: server.post().status_code))}"


def leavers(server: Running) -> str:
    long = attacks.silence(110)
    for _ in range(10):
        with attacks.leaving(server, long):
            time.sleep(0.3)
    return "10 left"


ATTACKS: dict[str, Callable[[Running], str]] = {
    "56 kB that are two hours of sound": hours,
    "110 minutes of silence in 400 kB": silence,
    "a recording of 10 minutes": talk,
    "2000 connections that say nothing": connections,
    "12 uploads of 200 MB at once": uploads,
    "4 forms of 400 fields of 1 MB": fields,
    "a form of the other kind, 300 MB": urlencoded,
    "200 dictations at once": crowd,
    "10 clients that leave while 110 minutes are decoded": leavers,
}


@contextmanager
def server_of(package: Path, slow: Path | None) -> Iterator[Running]:
    """A server with the files that a unit of that version allows."""
    files = FILES if package == ROOT else DEFAULT_FILES
    mine = resource.getrlimit(resource.RLIMIT_NOFILE)
    changes = {"PYTHONPATH": str(package), "TMPDIR": "/var/tmp"}
    if slow:
        changes |= {"STT_MODEL_DIR": str(slow), "STT_MODEL_NAME": NAME}
    with tempfile.TemporaryDirectory() as directory:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(files, mine[1]), mine[1]))
        with running(Path(directory), **changes) as server:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(FILES, mine[1]), mine[1]))
            yield server
    resource.setrlimit(resource.RLIMIT_NOFILE, mine)


def latency(package: Path, times: int = 200) -> float:
    """The median of a short dictation, in ms."""
    with server_of(package, None) as server:
        found = []
        for _ in range(times):
            began = time.perf_counter()
            assert server.post().status_code == 200
            found.append(time.perf_counter() - began)
    return 1000 * statistics.median(found)


def main(directory: str = str(ROOT), only: str = "") -> None:
    """Attack, and print."""
    package = Path(directory)
    print(f"a dictation alone: {latency(package):.1f} ms")
    with tempfile.TemporaryDirectory() as place:
        slow = make_model(Path(place, "slow"), SLOW)
        for name, attack in ATTACKS.items():
            if only and only not in name:
                continue
            with server_of(package, slow if attack in (uploads, talk) else None) as server:
                for _ in range(5):
                    server.post()
                with Watch(server) as watch:
                    time.sleep(1)
                    began = time.monotonic()
                    said = attack(server)
                    took = time.monotonic() - began
                    time.sleep(1)
                alive = "" if server.process.poll() is None else " (dead)"
                print(
                    f"| {name} | {said} in {took:.1f} s{alive} "
                    f"| {watch.most_memory - watch.before:.0f} MB | {watch.most_disk:.0f} MB "
                    f"| health {max(watch.health, default=0):.2f} s, dictation "
                    f"{max(watch.dictation, default=0):.2f} s | {dict(watch.failed) or 'none'} |",
                    flush=True,
                )


if __name__ == "__main__":
    main(*sys.argv[1:])
