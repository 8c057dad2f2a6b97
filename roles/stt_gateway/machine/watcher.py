"""The watcher: asks the servers, writes nginx's lists, counts, and says what it knows."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import os
import shutil
import signal
import socket
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .counts import Counts
from .health import Kind, accepts, ask
from .lists import places_conf, servers_conf
from .server_state import INTERVAL, ServerState
from .settings import Server, Settings

log = logging.getLogger("stt_gateway")
#: Seconds between two looks at the certificate.
RENEWAL = 3600.0
#: Seconds between two looks at whether a server that works accepts the key.
KEY_INTERVAL = 10.0
#: Seconds that the end of a server's connections may take; meanwhile nobody asks the server.
_CUT_SECONDS = 10.0


class Watcher:
    """The servers of a gateway, as they are now."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.began = time.time()
        now = time.monotonic()
        self.states = {server: ServerState(now) for server in settings.servers}
        self.counts = Counts(server.place for server in settings.servers)
        self._authorization = ""
        self._key_asked = dict.fromkeys(settings.servers, -math.inf)
        self._written: dict[str, str] = {}
        self._versions: dict[Path, tuple[int, int, int]] = {}
        self._full = False

    async def run(self) -> None:
        """Look after the servers for ever; the lists are there before it answers."""
        home = self.settings.home
        for name in ("spool", "unused", "health"):
            (home / name).mkdir(exist_ok=True)
        self._versions = self._versions_of_files()
        self._authorization = self._read_authorization()
        await asyncio.gather(*(self._ask(server) for server in self.states))
        await self._renewed()
        self.write()
        self._reload()  # what nginx has may be of another list of servers
        async with asyncio.TaskGroup() as group:
            for server in self.states:
                group.create_task(self._watch(server))
            group.create_task(self._look())
            group.create_task(self._count())
            group.create_task(self._answer())
            group.create_task(self._renew())

    # The servers

    async def _watch(self, server: Server) -> None:
        while True:
            await asyncio.sleep(INTERVAL)
            await self._ask(server)
            self.write()
            state = self.states[server]
            others = (each for each in self.states.values() if each is not state)
            # What is cut off has to have somewhere to go.
            if state.to_cut(time.monotonic()) and any(each.usable for each in others):
                await cut(server)

    async def _ask(self, server: Server) -> None:
        answer = await ask(server)
        state = self.states[server]
        before, was = state.serving, state.last.kind
        if answer.kind is Kind.GOOD:
            late = time.monotonic() - self._key_asked[server] >= KEY_INTERVAL
            # Before one that comes back gets anything.
            if state.refuses_key or was is not Kind.GOOD or late:
                await self._ask_with_key(server)
        state.observe(answer, time.monotonic())
        if state.serving != before:
            said = "gets requests" if state.serving else f"gets no requests: it {state.why}"
            log.info("%s (%s) %s", server.name, server.place, said)

    async def _ask_with_key(self, server: Server) -> None:
        """Whether it accepts the stack's key: it would answer 401 to its share of the clients."""
        if header := self._authorization:
            accepted = await accepts(server, header)
            if header == self._authorization:  # there is no other one meanwhile
                self._take_key(server, accepted)

    def _take_key(self, server: Server, accepted: bool | None) -> None:
        self._key_asked[server] = time.monotonic()
        if accepted is not None:
            self.states[server].take_key(accepted, time.monotonic())

    async def _change_key(self) -> None:
        """Ask all servers with the key that is in its file now, and then go by that key."""
        if not (header := self._read_authorization()):
            return
        accepted = await asyncio.gather(*(accepts(server, header) for server in self.states))
        # At once: between two of them none might be left.
        self._authorization = header
        for server, answer in zip(self.states, accepted, strict=True):
            self._take_key(server, answer)

    def _read_authorization(self) -> str:
        """The header with the stack's key; empty if there is none."""
        if self.settings.authorization is None:
            return ""
        with contextlib.suppress(OSError):  # it is not written yet
            return self.settings.authorization.read_text(encoding="utf-8").strip()
        return ""

    # What nginx reads

    def write(self) -> None:
        """Write the lists; where one has changed, nginx reads them."""
        home = self.settings.home
        serving = [server for server, state in self.states.items() if state.serving]
        usable = [server for server, state in self.states.items() if state.usable]
        now = time.monotonic()
        hopeful = [server for server, state in self.states.items() if state.may_answer(now)]
        works = bool(hopeful)
        said = json.dumps({"status": "ok" if works else "unavailable", "servers": self._health()})
        there, gone = ("some", "none") if works else ("none", "some")
        self._put(home / f"health/{there}.json", said + "\n")
        (home / f"health/{gone}.json").unlink(missing_ok=True)
        self._written.pop(f"{gone}.json", None)
        refusing = [server for server, state in self.states.items() if state.refuses_key]
        kept = [server for server in hopeful if server not in refusing]
        # If no other one is left, those are asked: clients with keys of their own are answered.
        servers = servers_conf(self.settings, serving or kept or usable, refusing if kept else [])
        changed = self._put(home / "servers.conf", servers)
        if self._put(home / "places.conf", places_conf(self.settings)) or changed:
            self._reload()

    def _put(self, file: Path, text: str) -> bool:
        """Write a file where it is not so already; whether it was."""
        if self._written.get(file.name) == text:
            return False
        part = file.with_suffix(".part")
        part.write_text(text, encoding="utf-8")
        part.replace(file)
        self._written[file.name] = text
        return True

    def _reload(self) -> None:
        """Have nginx read its files again; what runs goes on in the old processes."""
        with contextlib.suppress(OSError, ValueError):  # it does not run, and will read them
            number = int((self.settings.home / "nginx.pid").read_text())
            if number not in (0, 1, os.getpid()):
                os.kill(number, signal.SIGHUP)

    def _versions_of_files(self) -> dict[Path, tuple[int, int, int]]:
        """What tells one content of each file from another; nothing of one that is not there."""
        found = {}
        for file in self.settings.files:
            with contextlib.suppress(OSError):
                status = file.stat()
                found[file] = status.st_ino, status.st_mtime_ns, status.st_size
        return found

    # The certificate

    async def _renew(self) -> None:
        while self.settings.authority:
            await asyncio.sleep(RENEWAL)
            if await self._renewed():
                self._reload()

    async def _renewed(self) -> bool:
        """Renew the certificate if it is time; whether there is a new one.

        Raises:
            OSError: there is none, and none can be made.
        """
        authority = self.settings.authority
        if authority is None:
            return False
        try:
            renewed = await asyncio.to_thread(authority.renew)
        except OSError as error:
            if not authority.certificate.exists():
                raise
            log.error("the certificate cannot be renewed: %s", error)
            return False
        if renewed:
            log.info("there is a new certificate")
        return renewed

    # The disk, the keys and an operator's certificate

    async def _look(self) -> None:
        while True:
            versions = {**self._versions, **self._versions_of_files()}
            if versions != self._versions:
                log.info("the keys or the certificate have changed")
                self._versions = versions
                # With the new keys nginx gets the servers that accept them.
                await self._change_key()
                self.write()
                self._reload()
            self._mark_full()
            await asyncio.sleep(INTERVAL)

    def _mark_full(self) -> None:
        """Have nginx refuse work if there is no room for the largest body.

        What is left counts, not what bodies take: nginx keeps them in files without a name.
        """
        home = self.settings.home
        full = shutil.disk_usage(home).free < self.settings.upload_mb << 20
        if full != self._full:
            log.info("the disk %s", "has no room for another large body" if full else "has room")
            self._full = full
        mark = home / "full-for-work"
        if full:
            mark.touch()
        else:
            mark.unlink(missing_ok=True)

    # What it knows

    async def _count(self) -> None:
        """Take nginx's lines, a datagram each."""
        place = self.settings.home / "counts.sock"
        place.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as taken:
            taken.bind(str(place))
            taken.setblocking(False)
            loop = asyncio.get_running_loop()
            while True:
                line = await loop.sock_recv(taken, 4096)
                self.counts.add(line.decode("utf-8", "replace"))

    def _health(self) -> list[dict[str, Any]]:
        """The servers for everybody who asks; no addresses."""
        now = time.monotonic()
        return [
            {
                "name": server.name,
                "serving": state.serving,
                "since": datetime.fromtimestamp(
                    round(time.time() - now + state.since), UTC
                ).isoformat(),
                **({"why": state.why} if state.why else {}),
            }
            for server, state in self.states.items()
        ]

    def status(self) -> dict[str, Any]:
        """What `make status` shows: times in seconds from now."""
        now = time.monotonic()
        return {
            "seconds": round(time.time() - self.began),
            "totals": self.counts.data(),
            "full": self._full,
            "servers": [
                {
                    "name": server.name,
                    "url": f"http://{server.place}",
                    "serving": state.serving,
                    "for": round(now - state.since),
                    "why": state.why,
                    **vars(self.counts.tries[server.place]),
                }
                for server, state in self.states.items()
            ],
        }

    def metrics(self) -> str:
        """The same in Prometheus' text format."""
        lines = [f"stt_gateway_{name}_total {value}" for name, value in self.counts.data().items()]
        for server, state in self.states.items():
            label = f'{{server="{server.name}"}}'
            lines.append(f"stt_gateway_server_serving{label} {int(state.serving)}")
            lines += [
                f"stt_gateway_server_{name}_total{label} {value}"
                for name, value in vars(self.counts.tries[server.place]).items()
            ]
        return "".join(f"{line}\n" for line in lines)

    async def _answer(self) -> None:
        """Answer on the loopback: ``/health``, ``/status`` and ``/metrics``."""
        server = await asyncio.start_server(self._client, "127.0.0.1", self.settings.port)
        async with server:
            await server.serve_forever()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(5):
                path = (await reader.readline()).decode("latin-1").split(" ")[1:2]
                await reader.readuntil(b"\r\n\r\n")
                status, kind, body = self._said(path[0] if path else "")
                head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nConnection: close\r\n"
                writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # nobody reads it
        finally:
            writer.close()

    def _said(self, path: str) -> tuple[str, str, bytes]:
        json_bodies: Mapping[str, Any] = {"/health": {"status": "ok"}, "/status": self.status()}
        if path == "/metrics":
            return "200 OK", "text/plain; version=0.0.4", self.metrics().encode()
        if path in json_bodies:
            return "200 OK", "application/json", json.dumps(json_bodies[path]).encode()
        return "404 Not Found", "text/plain", b"/health, /status, /metrics\n"


async def cut(server: Server) -> None:
    """End every connection of this machine to a server; nginx gives its requests to another one.

    The kernel does it (``SOCK_DESTROY``), and needs ``CAP_NET_ADMIN`` for it. One without it
    (``CONFIG_INET_DIAG_DESTROY``) does nothing, and says nothing.
    """
    words = [
        "-K",
        "-Htn",
        "state",
        "established",
        "dst",
        server.address,
        "dport",
        "=",
        str(server.port),
    ]
    try:
        process = await asyncio.create_subprocess_exec(
            "ss",
            *words,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        log.error("the connections to %s cannot be ended: %s", server.name, error)
        return
    try:
        out, err = await asyncio.wait_for(process.communicate(), _CUT_SECONDS)
    except TimeoutError:
        process.kill()
        with contextlib.suppress(TimeoutError):  # within the kernel nothing ends it
            await asyncio.wait_for(process.wait(), 1)
        said = "ss -K did not end the connections to %s in %s s and was killed"
        log.error(said, server.name, _CUT_SECONDS)
        return
    if ended := len(out.splitlines()):
        log.warning("%s: %d connections to it were ended", server.name, ended)
    if process.returncode:
        log.error("ss -K failed: %s", err.decode(errors="replace").strip()[:200])
