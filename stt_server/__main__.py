"""``python -m stt_server``: serve until SIGTERM."""

from __future__ import annotations

import os
import socket
import sys

import uvicorn

from stt_server.service import Service, create_app
from stt_server.settings import SettingsError, read_settings

#: sysexits.h EX_CONFIG: systemd shows it as CONFIG.
EX_CONFIG = 78
#: How long SIGTERM lets a running transcription end; then uvicorn lets the signal end the process.
GRACE_SECONDS = 5


class Server(uvicorn.Server):
    """Uvicorn that tells systemd when it listens."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say so."""
        await super().startup(sockets)
        if self.started:
            notify("READY=1")


def notify(state: str) -> None:
    """Tell systemd (sd_notify(3)); without systemd, nobody."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.connect("\0" + address[1:] if address.startswith("@") else address)
            channel.send(state.encode())


def main() -> int:
    """Serve until SIGTERM. Returns the exit status."""
    try:
        settings = read_settings(os.environ)
        service = Service(settings)
    except SettingsError as error:
        print(f"stt_server: {error}.", file=sys.stderr)
        return EX_CONFIG
    config = uvicorn.Config(
        create_app(service),
        host=settings.host,
        port=settings.port,
        log_level="info",
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    Server(config).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
