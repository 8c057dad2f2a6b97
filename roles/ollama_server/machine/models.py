"""Ollama's models: ``models.py pull PORT VOLUME MODEL…``, ``models.py check PORT MODEL…``.

``pull`` fetches what is missing; Ollama's directory is on a volume, which other machines may have.
``check`` prints, as JSON, a list of ``[field, found, wanted]`` of models that are missing.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

#: Parts of a model from this size on are told; bytes.
LARGE = 50_000_000
#: On the volume; only root can hold it.
LOCK = ".ollama.lock"
#: Seconds between two lines on how much has come.
EVERY = 15.0
#: Seconds to wait for another machine that pulls models.
LOCK_DEADLINE = 7200.0
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def call(port: int, path: str, body: dict[str, Any], timeout: float) -> Any:
    """An open answer of Ollama's API.

    Raises:
        OSError: it does not answer, or answers with an error.
    """
    data = json.dumps(body).encode()
    url = f"http://127.0.0.1:{port}{path}"
    return _OPENER.open(urllib.request.Request(url, data), timeout=timeout)


def has(port: int, model: str) -> bool:
    """Whether Ollama has a model.

    Raises:
        OSError: it does not answer.
    """
    try:
        with call(port, "/api/show", {"model": model}, 10):
            return True
    except urllib.error.HTTPError:
        return False


class Progress:
    """Says how large each large part of a model is, and now and then how much of it has come."""

    def __init__(self, model: str) -> None:
        self.model, self.part = model, ""
        self.moment, self.came = 0.0, 0

    def tell(self, said: dict[str, Any]) -> None:
        """A line of Ollama's, which has many of them a second."""
        part, size = said.get("digest", ""), said.get("total", 0)
        came, now = said.get("completed", 0), time.monotonic()
        if size < LARGE:
            return
        if part != self.part:
            self.part, self.moment, self.came = part, now, came
            self._print(f"{size / 1e9:.1f} GB")
        elif now - self.moment >= EVERY:
            speed = (came - self.came) / (now - self.moment)
            left = f", about {(size - came) / speed / 60:.0f} min left" if speed > 0 else ""
            self.moment, self.came = now, came
            self._print(f"{came / 1e9:.1f} of {size / 1e9:.1f} GB, {speed / 1e6:.0f} MB/s{left}")

    def _print(self, text: str) -> None:
        print(f"pulling {self.model}: {text}", file=sys.stderr, flush=True)


def pull(port: int, model: str) -> None:
    """Fetch a model.

    Raises:
        SystemExit: it cannot be fetched; Ollama says why.
    """
    print(f"pulling {model}", file=sys.stderr, flush=True)
    progress = Progress(model)
    try:
        # Lines come as the download goes on.
        with call(port, "/api/pull", {"model": model}, 600) as answer:
            for line in answer:
                said = json.loads(line)
                if "error" in said:
                    sys.exit(f"{model}: {said['error']}")
                progress.tell(said)
    except OSError as error:
        sys.exit(f"{model}: {error}")


@contextlib.contextmanager
def only_one(volume: str) -> Iterator[None]:
    """Be the only machine that fetches to a volume: two Ollamas would write the same files.

    Raises:
        SystemExit: another machine has not ended in time.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    descriptor = os.open(os.path.join(volume, LOCK), flags, 0o600)
    try:
        if not _locked(descriptor):
            print("waiting for models that another machine pulls", file=sys.stderr, flush=True)
            end = time.monotonic() + LOCK_DEADLINE
            while not _locked(descriptor):
                if time.monotonic() >= end:
                    sys.exit(
                        f"Another machine still pulls models to this volume, after "
                        f"{LOCK_DEADLINE:.0f} s. Look at the other machines of the domain (ps "
                        "aux), or restart them. Then run up again."
                    )
                time.sleep(0.1)
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    """Whether the lock is held now; this program is by itself in a machine."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def main(verb: str, port: int, *words: str) -> None:
    """Pull or check."""
    if verb == "check":
        missing = [model for model in words if not has(port, model)]
        print(json.dumps([[f"model {model}", "not there", "there"] for model in missing]))
        return
    volume, *models = words
    with only_one(volume):
        for model in models:
            if not has(port, model):
                pull(port, model)
    print(json.dumps({"models": models}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
