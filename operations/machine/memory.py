"""Who holds a device's memory in this machine, and how to free it.

``memory.py status|flush JSON`` prints JSON. It runs by itself, with Python's standard library. In
JSON: the URLs of ``stt`` and ``ollama`` (empty: there is none), the file ``authorization`` (empty:
no key is asked for), and in ``restart`` the unit of each that restarts where it does not unload.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: Seconds that a restart may take: the service finishes its work first.
_RESTART_SECONDS = 900
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def call(
    url: str,
    method: str = "GET",
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    seconds: float = 10,
) -> tuple[int, Any]:
    """Status and answer; 0 where nobody answers."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, dict(headers or {}), method=method)  # noqa: S310  # our own services
    try:
        with _OPENER.open(request, timeout=seconds) as answer:
            return answer.status, json.loads(answer.read() or "null")
    except urllib.error.HTTPError as error:
        return error.code, None
    except (OSError, ValueError):
        return 0, None


@dataclass(frozen=True)
class Services:
    """What runs in this machine: addresses, and the file with the API key's header."""

    stt: str
    ollama: str
    authorization: str
    restart: Mapping[str, str] = field(default_factory=dict)

    def key(self) -> dict[str, str]:
        """The API key's header, which never leaves this machine; nothing where none is asked."""
        if not self.authorization:
            return {}
        name, _, value = Path(self.authorization).read_text("ascii").strip().partition(": ")
        return {name: value}

    def stt_loaded(self) -> dict[str, Any] | None:
        """What the STT engine has loaded; ``models`` is None where it cannot tell."""
        if not self.stt:
            return None
        status, said = call(f"{self.stt}/api/ps", headers=self.key())
        if status != 200 or not isinstance(said, dict) or "models" not in said:
            return {"answers": status != 0, "models": None}
        return {"answers": True, "models": said["models"]}

    def ollama_loaded(self) -> dict[str, Any] | None:
        """What Ollama has loaded."""
        if not self.ollama:
            return None
        status, said = call(f"{self.ollama}/api/ps")
        if status != 200:
            return {"answers": False, "models": []}
        keys = ("name", "size", "size_vram", "expires_at")
        return {"answers": True, "models": [{k: m.get(k) for k in keys} for m in said["models"]]}

    def status(self) -> dict[str, Any]:
        """What both have loaded."""
        return {"stt": self.stt_loaded(), "ollama": self.ollama_loaded()}

    def flush(self) -> Iterator[tuple[str, str]]:
        """Unload both, each after its current work; one word for each says how it went."""
        stt = self.stt_loaded()
        if stt is not None:
            yield "stt", self._or_restarted("stt", self._flush_stt(stt))
        ollama = self.ollama_loaded()
        if ollama is not None:
            done = self._flush_ollama([model["name"] for model in ollama["models"]])
            yield "ollama", self._or_restarted("ollama", done)

    def _or_restarted(self, name: str, done: str) -> str:
        """``restarted`` where the service kept something, and a restart has freed it."""
        unit = self.restart.get(name)
        if unit is None or done in ("unloaded", "nothing"):
            return done
        # One that does not run has nothing loaded, and stays as it is.
        words = ["systemctl", "try-restart", unit]
        try:
            failed = subprocess.run(  # noqa: S603
                words, stdout=sys.stderr, timeout=_RESTART_SECONDS, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            said = f"{' '.join(words)} did not end within {_RESTART_SECONDS} s"
            print(f"{said}. See systemctl status {unit}.", file=sys.stderr)
            failed = 1
        return done if failed else "restarted"

    def _flush_stt(self, found: Mapping[str, Any]) -> str:
        if found["models"] is None:
            return "cannot" if found["answers"] else "silent"
        done = "nothing"
        for name in found["models"]:
            url = f"{self.stt}/api/ps/{urllib.parse.quote(name, safe='')}"
            status, _ = call(url, "DELETE", headers=self.key(), seconds=800)
            done = "unloaded" if status in (200, 404) else "busy"
        return done

    def _flush_ollama(self, loaded: list[str]) -> str:
        for name in loaded:
            body = {"model": name, "keep_alive": 0, "stream": False}
            call(f"{self.ollama}/api/generate", "POST", body, seconds=300)
        end = time.monotonic() + 60
        while self._ollama_names() and time.monotonic() < end:
            time.sleep(0.2)
        if self._ollama_names():
            return "stays"
        return "unloaded" if loaded else "nothing"

    def _ollama_names(self) -> list[str]:
        return [model["name"] for model in (self.ollama_loaded() or {"models": []})["models"]]


def main(verb: str, asked: str) -> None:
    """Do it, and print what was found."""
    services = Services(**json.loads(asked))
    print(json.dumps(dict(services.flush()) if verb == "flush" else services.status()))


if __name__ == "__main__":
    main(*sys.argv[1:])
