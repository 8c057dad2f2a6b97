"""Keys of single clients: whose a key is, and how the log names who sent a request.

The standard library is enough: the wrapper around Speaches uses this module too.
"""

from __future__ import annotations

import hmac
import json
import logging
import os
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

log = logging.getLogger("uvicorn.error")
#: What tells a file from the one that took its place.
Version = tuple[int, int, int]


class ClientKeys:
    """The keys of a file: a JSON object with each client's key by the client's name.

    The file is read again when it has changed, so a key is taken or refused from then on without a
    restart. Without a file there are none; of a file that cannot be read no key is taken.
    """

    def __init__(self, file: str) -> None:
        self._file = Path(file) if file else None
        self._version: Version | None = None
        self._keys: dict[str, bytes] = {}
        self._failure = ""

    def name_of(self, key: bytes) -> str:
        """The client whose key it is; empty: nobody's."""
        found = ""
        for name, each in self._current().items():  # all of them: the time tells nothing
            if hmac.compare_digest(key, each):
                found = name
        return found

    def _current(self) -> dict[str, bytes]:
        if self._file is None:
            return {}
        version: Version | None = None
        keys: dict[str, bytes] = {}
        failure = ""
        try:
            status = os.stat(self._file)
            version = (status.st_ino, status.st_mtime_ns, status.st_size)
            if version == self._version:
                return self._keys
            keys = _read(self._file)
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            failure = str(error)
        if failure not in ("", self._failure):
            log.error("no client's key is taken: %s cannot be read: %s", self._file, failure)
        self._version, self._keys, self._failure = version, keys, failure
        return keys


def _read(file: Path) -> dict[str, bytes]:
    """The keys by name.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not such a file; no key is in the error.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:  # its own text may have a part of the file
        raise ValueError("it is not JSON") from None
    if not isinstance(found, dict) or not all(isinstance(k, str) and k for k in found.values()):
        raise ValueError("it is not a JSON object of names and keys")
    return {name: key.encode() for name, key in found.items()}


def bearer_key(scope: MutableMapping[str, Any]) -> bytes:
    """The key that a request or a connection brings; empty: none."""
    headers: dict[bytes, bytes] = dict(scope["headers"])
    scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
    return given.strip() if scheme.lower() == b"bearer" else b""


def name_in_log(scope: MutableMapping[str, Any], name: str) -> None:
    """Have Uvicorn's line about a request say ``NAME@ADDRESS:PORT``.

    It takes the address from here, as its own middleware for proxies does.
    """
    host, port = scope.get("client") or ("unknown", 0)
    scope["client"] = (f"{name}@{host}", port)


def keep_queries_out() -> None:
    """Have Uvicorn's lines end a path at its query: clients send keys there too."""
    for name in ("uvicorn.access", "uvicorn.error"):
        logging.getLogger(name).addFilter(_without_query)


def _without_query(record: logging.LogRecord) -> bool:
    if isinstance(record.args, tuple):
        record.args = tuple(
            each.partition("?")[0] if isinstance(each, str) else each for each in record.args
        )
    return True
