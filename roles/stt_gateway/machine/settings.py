"""What the watcher is told: the servers, and how much they take."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Server:
    """An STT server."""

    name: str
    address: str
    port: int

    @property
    def place(self) -> str:
        """Address and port, as nginx's log has them."""
        return f"{self.address}:{self.port}"


@dataclass(frozen=True)
class Settings:
    """The file of settings.

    ``waiting``: requests that may wait at each server. ``upload_mb``: MiB that a request may have.
    ``home`` is nginx's directory, ``keys_file`` what it has to read again after a change (empty:
    none), ``port`` where the watcher answers on the loopback.
    """

    servers: tuple[Server, ...]
    waiting: int
    upload_mb: int
    home: Path
    keys_file: str
    port: int

    @property
    def places(self) -> int:
        """Requests that the servers take in together: one that is worked on, and those waiting."""
        return len(self.servers) * (self.waiting + 1)

    @property
    def room(self) -> int:
        """Bytes that bodies on the disk may take: two of the largest for each server, as there."""
        return len(self.servers) * 2 * self.upload_mb << 20


def read_settings(file: Path) -> Settings:
    """The settings of a file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not such a file.
    """
    data = json.loads(file.read_text(encoding="utf-8"))
    try:
        servers = tuple(Server(**each) for each in data.pop("servers"))
        home = Path(data.pop("home"))
        settings = Settings(servers=servers, home=home, **data)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{file} is not a file of settings: {error}") from None
    if not servers:
        raise ValueError(f"{file} names no server")
    return settings
