"""What the watcher is told: the servers, and how much they take."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from .authority import Authority


@dataclass(frozen=True)
class Server:
    """An STT server; ``health`` is asked where it has no ``/ready``."""

    name: str
    address: str
    port: int
    health: str = "/health"

    @property
    def place(self) -> str:
        """Address and port, as nginx's log has them."""
        return f"{self.address}:{self.port}"


@dataclass(frozen=True)
class Settings:
    """The file of settings.

    ``waiting``: requests that may wait at each server. ``upload_mb``: MiB that a request may have.
    ``home`` is nginx's directory, ``files`` are what it has to read again after a change, ``port``
    is where the watcher answers on the loopback. ``authority`` makes nginx's certificate, if any.
    ``authorization`` has the header with the stack's key, which every server has to accept; None:
    no key is asked for.
    """

    servers: tuple[Server, ...]
    waiting: int
    upload_mb: int
    home: Path
    files: tuple[Path, ...]
    port: int
    authority: Authority | None = None
    authorization: Path | None = None

    @property
    def places(self) -> int:
        """Requests that the servers take in together: one that is worked on, and those waiting."""
        return len(self.servers) * (self.waiting + 1)


def read_settings(file: Path) -> Settings:
    """The settings of a file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not such a file.
    """
    data = json.loads(file.read_text(encoding="utf-8"))
    try:
        servers = tuple(Server(**each) for each in data.pop("servers"))
        home, files = Path(data.pop("home")), tuple(map(Path, data.pop("files")))
        if told := data.pop("authority", None):
            told = Authority(Path(told.pop("directory")), **told)
        if header := data.pop("authorization", None):
            header = Path(header)
        settings = Settings(
            servers, home=home, files=files, authority=told, authorization=header, **data
        )
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{file} is not a file of settings: {error}") from None
    if not servers:
        raise ValueError(f"{file} names no server")
    return settings
