"""OWhisper's last server behind these routes: whisper.cpp, in a process of its own on the loopback.

It transcribes over a WebSocket (Deepgram's ``/v1/listen``), one connection at a time, checks no
key, and loads its model again for every connection. Its makers abandoned it in December 2025.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
from websockets.exceptions import ConnectionClosedOK
from websockets.sync.client import connect

from stt_server.audio import SAMPLING_RATE, Samples, StoppedError
from stt_server.recognizer import Info, Options, Segment
from stt_server.settings import Settings, SettingsError

VERSION = "0.0.3"
MODEL = "model"
#: Samples of a message; and of silence at the end, after which its voice detector lets go.
CHUNK, TAIL = SAMPLING_RATE // 10, SAMPLING_RATE
START_SECONDS = 30
#: A recording may take long, and says nothing meanwhile.
ANSWER_SECONDS = 600
#: Between two looks at whether anybody still waits.
LOOK_SECONDS = 0.5


class OwhisperRecognizer:
    """A directory with ``model.ggml``."""

    tasks = ("transcribe",)
    device, version = "cpu", VERSION

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.compute_type = settings.compute_type
        self.languages = list(settings.languages) or None
        self._directory = tempfile.TemporaryDirectory()
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    @property
    def loaded(self) -> bool:
        """Whether its process runs."""
        return self._process is not None and self._process.poll() is None

    def load(self) -> None:
        """Start it, and transcribe once: it loads its model no sooner."""
        config = Path(self._directory.name) / "config.json"
        model = {"type": "whisper-cpp", "id": MODEL, "assets_dir": str(self.settings.model_dir)}
        config.write_text(json.dumps({"models": [model]}))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        program = Path(self.settings.program)
        libraries = program.parent.parent / "lib"
        self._process = subprocess.Popen(  # noqa: S603  # the program of the configuration
            [str(program), "serve", "--config", str(config), "--port", str(self._port)],
            env={**os.environ, "LD_LIBRARY_PATH": str(libraries)},
            stdout=subprocess.DEVNULL,
        )
        end = time.monotonic() + START_SECONDS
        while not self._answers():
            if not self.loaded or time.monotonic() > end:
                self.unload()
                raise SettingsError(f"STT_PROGRAM is {str(program)!r}, which does not start")
            time.sleep(0.1)
        try:
            list(self._listen(np.zeros(SAMPLING_RATE, np.float32), Options(language="en")))
        except Exception:
            self.unload()
            raise

    def unload(self) -> None:
        """End its process."""
        if self._process is not None:
            self._process.kill()
            with contextlib.suppress(
                subprocess.TimeoutExpired
            ):  # within the kernel nothing ends it
                self._process.wait(10)
            self._process = None

    def transcribe(self, samples: Samples, options: Options) -> tuple[Iterator[Segment], Info]:
        """Transcribe; a segment ends where the speaker pauses. The times are OWhisper's guess."""
        duration = len(samples) / SAMPLING_RATE
        return self._segments(samples, options, duration), Info(duration, options.language)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/health", timeout=2) as said:
                return bool(said.status == 200)
        except OSError:
            return False

    def _segments(self, samples: Samples, options: Options, duration: float) -> Iterator[Segment]:
        start = 0.0
        for text, seconds in self._listen(samples, options):
            end = min(start + max(seconds, 0.0), duration)
            yield Segment(start, end, f" {text.strip()}")
            start = end

    def _listen(self, samples: Samples, options: Options) -> Iterator[tuple[str, float]]:
        """What it says: texts, and how long it takes each to be."""
        pcm = np.concatenate([samples, np.zeros(TAIL, np.float32)])
        pcm = (np.clip(pcm, -1, 1) * 32767).astype("<i2")
        query = {"model": MODEL, "channels": 1, "sample_rate": SAMPLING_RATE}
        language = {"languages[0]": options.language} if options.language else {}
        words = urlencode({**query, **language})
        address = f"ws://127.0.0.1:{self._port}/v1/listen?{words}"
        with connect(address, max_size=None, proxy=None, ping_interval=None) as channel:
            for first in range(0, len(pcm), CHUNK):
                if options.stopped():
                    raise StoppedError
                channel.send(pcm[first : first + CHUNK].tobytes())
            # Where a part of a frame is left over, it takes the first one for that.
            for _ in range(2):
                channel.send(json.dumps({"type": "end"}))
            end = time.monotonic() + ANSWER_SECONDS
            while True:
                if options.stopped():
                    raise StoppedError
                try:
                    said = json.loads(channel.recv(timeout=LOOK_SECONDS))
                except TimeoutError:
                    if time.monotonic() > end:
                        raise
                    continue
                except ConnectionClosedOK:
                    return
                end = time.monotonic() + ANSWER_SECONDS
                best = said["channel"]["alternatives"][0]["transcript"]
                if best.strip():
                    yield best, float(said["duration"])


def create(settings: Settings) -> OwhisperRecognizer:
    """The recognizer, not started yet.

    Raises:
        SettingsError: the program or the model is missing, or the device is another.
    """
    if settings.device != "cpu":
        raise SettingsError(
            f"STT_DEVICE is {settings.device!r}, and OWhisper runs only on cpu here"
        )
    settings.require("model.ggml")
    if not os.access(settings.program, os.X_OK):
        raise SettingsError(f"STT_PROGRAM is {settings.program!r}, which is not a program")
    return OwhisperRecognizer(settings)
