"""``python -m stt_server``: serve until SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from typing import Any

import uvicorn

from stt_server.protocol import Protocol
from stt_server.service import Service, create_app
from stt_server.settings import Settings, SettingsError, read_settings

log = logging.getLogger("uvicorn.error")
#: sysexits.h EX_CONFIG: systemd shows it as CONFIG.
EX_CONFIG = 78
#: How long SIGTERM lets a running transcription end; then uvicorn lets the signal end the process.
GRACE_SECONDS = 5
#: The first file descriptor that systemd passes.
LISTEN_FDS_START = 3


class Server(uvicorn.Server):
    """Uvicorn that tells systemd when it listens."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say so."""
        asyncio.get_running_loop().set_exception_handler(_say)
        await super().startup(sockets)
        if self.started:
            notify("READY=1")


def _say(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What goes wrong outside of requests, such as too many connections: a line for each."""
    log.error("%s: %r", context["message"], context.get("exception"))


def notify(state: str) -> None:
    """Tell systemd (sd_notify(3)); without systemd, nobody."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.connect("\0" + address[1:] if address.startswith("@") else address)
            channel.send(state.encode())


def held_socket(settings: Settings) -> list[socket.socket] | None:
    """The socket that systemd listens on (sd_listen_fds(3)); None without one.

    Raises:
        SettingsError: it listens elsewhere than the settings say.
    """
    if (os.environ.get("LISTEN_PID"), os.environ.get("LISTEN_FDS")) != (str(os.getpid()), "1"):
        return None
    held = socket.socket(fileno=LISTEN_FDS_START)
    if held.getsockname() != (settings.host, settings.port):
        host, port = held.getsockname()[:2]
        raise SettingsError(
            f"STT_HOST and STT_PORT are {settings.host} and {settings.port}, and the socket of "
            f"systemd listens on {host}, port {port}"
        )
    return [held]


def main() -> int:
    """Serve until SIGTERM. Returns the exit status."""
    try:
        settings = read_settings(os.environ)
        sockets = held_socket(settings)
        service = Service(settings)
    except SettingsError as error:
        print(f"stt_server: {error}.", file=sys.stderr)
        return EX_CONFIG
    config = uvicorn.Config(
        create_app(service),
        host=settings.host,
        port=settings.port,
        http=Protocol,
        log_level="info",
        server_header=False,
        proxy_headers=False,  # else a client could write itself another name into the log
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    Server(config).run(sockets)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
