"""The server as a process of its own, as systemd would start it."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
import threading
import time
import wave
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "stt_server"]
MODEL = ROOT / "models" / "tiny-digits"
RECORDINGS = ROOT / "recordings"
NAME = "models/tiny-digits"
KEY = "sk-a-key-of-the-tests"
SPEECH = RECORDINGS / "one_two_three.wav"


def settings(**changes: str) -> dict[str, str]:
    """A whole environment that works, with ``changes``."""
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "STT_MODEL_DIR": str(MODEL),
        "STT_MODEL_NAME": NAME,
        "STT_MODEL_ALIASES": json.dumps(["whisper-1"]),
        "STT_COMPUTE_TYPE": "int8",
        **changes,
    }


@dataclass
class Running:
    """A server that answers."""

    url: str
    process: subprocess.Popen[bytes]
    log_file: Path
    key: str = ""

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, headers=self.headers, timeout=60)

    def post(
        self,
        audio: Any = SPEECH,
        path: Any = "/v1/audio/transcriptions",
        **fields: Any,
    ) -> httpx.Response:
        """A transcription of a file or of bytes; a field that is None is left out."""
        data = {"model": NAME, **fields}
        content = audio.read_bytes() if isinstance(audio, Path) else audio
        return httpx.post(
            self.url + path,
            headers=self.headers,
            data={name: value for name, value in data.items() if value is not None},
            files={"file": ("recording", content)} if content is not None else {"x": b""},
            timeout=300,
        )

    @property
    def worked(self) -> float:
        """The processor time that it has used; s."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def wait_for_work(self, seconds: float = 30) -> None:
        """Until it computes."""
        begin, end = self.worked, time.monotonic() + seconds
        while self.worked < begin + 0.5:  # receiving and decoding take less
            assert time.monotonic() < end, f"it does nothing within {seconds} s"
            time.sleep(0.02)

    def wait_for_log(self, text: str, seconds: float, times: int = 1) -> None:
        end = time.monotonic() + seconds
        while self.log.count(text) < times:
            assert time.monotonic() < end, f"no {text!r} within {seconds} s:\n{self.log}"
            time.sleep(0.02)


@contextmanager
def running(
    directory: Path, key: str = "", command: Sequence[str] = COMMAND, **changes: str
) -> Iterator[Running]:
    """Start a server, wait until it is healthy, and end it."""
    port = free_port()
    log_file = directory / f"server-{port}.log"
    if key:
        file = directory / f"key-{port}"
        file.write_text(key + "\n")
        changes["STT_API_KEY_FILE"] = str(file)
    environment = settings(STT_PORT=str(port), **changes)
    with log_file.open("wb") as log:
        process = subprocess.Popen(command, env=environment, cwd=directory, stdout=log, stderr=log)
    server = Running(f"http://127.0.0.1:{port}", process, log_file, key)
    try:
        end = time.monotonic() + 60
        while True:
            assert process.poll() is None, server.log
            assert time.monotonic() < end, server.log
            try:
                if httpx.get(server.url + "/health", timeout=60).status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.05)
        yield server
    finally:
        process.kill()
        process.wait()


class This:
    """This process, as the one of a server."""

    pid = os.getpid()


@contextmanager
def served(app: Any) -> Iterator[Running]:
    """An application of a test's own, in this process, behind the server's protocol."""
    import uvicorn  # here: `make test-unit` reads this file and starts no server

    from stt_server.protocol import Protocol

    port = free_port()
    config = uvicorn.Config(app, port=port, http=Protocol, log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "it does not start"
            time.sleep(0.01)
        yield Running(f"http://127.0.0.1:{port}", This(), Path())  # type: ignore[arg-type]
    finally:
        server.should_exit = True
        thread.join()


def wait(done: Callable[[], bool], seconds: float = 30) -> None:
    """Until it is so."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, f"it is not so within {seconds} s"
        time.sleep(0.02)


def wav(samples: Any, rate: int = 16000) -> bytes:
    """Samples from -1 to 1 as a recording."""
    import numpy as np

    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes((np.asarray(samples) * 32767).astype("<i2").tobytes())
    return file.getvalue()


def speech() -> Any:
    """The samples of ``SPEECH``."""
    import numpy as np

    with wave.open(str(SPEECH)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768
