"""What a hostile or broken client does to the server, and what the others notice of it."""

from __future__ import annotations

import http.client
import io
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import av
import httpx
import numpy as np

from tests.server.server import NAME, RECORDINGS, Running, speech, wav

BOUNDARY = "abuse"
PART = b"--abuse\r\nContent-Disposition: form-data; name=%s\r\n\r\n"
END = b"\r\n--abuse--\r\n"
_CHUNK = b"\0" * (1 << 16)


# Files


def hours_in_a_packet() -> bytes:
    """56 kB that are two hours of sound, at 4 samples a second."""
    samples = np.random.default_rng(1).standard_normal(28_000)
    return wav(np.clip(samples / 4, -1, 1), rate=4)


def hour_in_a_packet() -> bytes:
    """17 kB of ALAC: 70 minutes of silence, 2^24 samples, come out of one packet."""
    most = 1 << 24
    bits: list[int] = []

    def put(value: int, width: int) -> None:
        bits.extend(value >> place & 1 for place in range(width - 1, -1, -1))

    # An element of one channel: compressed, without a shift, no prediction, one run of zeros after
    # the other (the format's reference decoder: ag_dec.c).
    for value, width in ((0, 3), (0, 4), (0, 12), (0, 1), (0, 2), (0, 1), (0, 8), (0, 8)):
        put(value, width)
    for value, width in ((0, 4), (9, 4), (4, 3), (0, 5)):
        put(value, width)
    for _ in range(most >> 16):
        for value, width in ((0, 1), (0x1FF, 9), (0xFFFF, 16)):
            put(value, width)
    put(7, 3)
    bits += [0] * (-len(bits) % 8)
    packet = np.packbits(np.array(bits, np.uint8)).tobytes()
    file, given = io.BytesIO(), []
    noise = np.random.default_rng(1).integers(-(2**14), 2**14, (2, 1, 4096), np.int16)
    with av.open(file, "w", format="mov") as out:
        stream = out.add_stream("alac", rate=4000, layout="mono", format="s16p")
        assert isinstance(stream, av.AudioStream)
        for number, part in enumerate(noise):
            frame = av.AudioFrame.from_ndarray(part, format="s16p", layout="mono")
            frame.sample_rate, frame.pts = 4000, number * 4096
            for made in (*stream.encode(frame), *(stream.encode(None) if number else [])):
                given.append(bytes(made))
                out.mux(made)
    whole = file.getvalue().replace(given[0], packet.ljust(len(given[0]), b"\0"), 1)
    # The samples of a packet, as the file states them.
    head, found, tail = whole.rpartition(b"alac\0\0\0\0\0\0\x10\0")
    assert found and len(packet) < len(given[0])
    return head + found[:8] + most.to_bytes(4, "big") + tail


def encoded(container: str, codec: str, parts: Iterator[Any]) -> bytes:
    """Samples at 16 kHz as a file."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(codec, rate=16000)
        assert isinstance(stream, av.AudioStream)
        for part in parts:
            whole = (np.asarray(part) * 32767).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(whole, format="s16", layout="mono")
            frame.rate = 16000
            for packet in stream.encode(frame):
                out.mux(packet)
        for packet in stream.encode(None):
            out.mux(packet)
    return file.getvalue()


def silence(minutes: int) -> bytes:
    """FLAC, of which a minute takes 4 kB."""
    return encoded("flac", "flac", (np.zeros(16000 * 60) for _ in range(minutes)))


def talk(minutes: float) -> bytes:
    """Spoken words with pauses."""
    once = np.append(speech(), np.zeros(8000))
    return wav(np.resize(once, int(16000 * 60 * minutes)))


# Requests


def headers(server: Running, kind: str = f"multipart/form-data; boundary={BOUNDARY}") -> Any:
    return {**server.headers, "Content-Type": kind}


def send(server: Running, content: Any, kind: str = "", seconds: float = 120) -> int:
    """A body of one's own; the status, or 0 where the connection broke."""
    return send_whole(server, content, kind, seconds)[0]


def send_whole(
    server: Running, content: Any, kind: str = "", seconds: float = 120
) -> tuple[int, httpx.Headers]:
    url = f"{server.url}/v1/audio/transcriptions"
    sent = headers(server, kind) if kind else headers(server)
    try:
        answer = httpx.post(url, content=content, headers=sent, timeout=seconds)
    except httpx.TransportError:
        return 0, httpx.Headers()
    return answer.status_code, answer.headers


def file_of(size: int) -> Iterator[bytes]:
    """A form with a file of ``size`` bytes that is no audio."""
    yield PART % b'"model"' + NAME.encode() + b"\r\n"
    yield PART % b'"file"; filename="x"'
    for _ in range(size // len(_CHUNK)):
        yield _CHUNK
    yield END


def fields_of(number: int, size: int) -> Iterator[bytes]:
    """A form of so many fields of so many bytes."""
    for each in range(number):
        yield PART % b'"field%d"' % each
        for _ in range(size // len(_CHUNK)):
            yield _CHUNK
        yield b"\r\n"
    yield END


def urlencoded(size: int) -> Iterator[bytes]:
    """A form of the other kind."""
    for _ in range(size >> 16):
        yield b"a=" + b"b" * 65500 + b"&" + b"c" * 33


@contextmanager
def leaving(server: Running, audio: bytes) -> Iterator[None]:
    """Post a recording, and leave at the end of the block without an answer."""
    url = f"{server.url}/v1/audio/transcriptions"
    form = httpx.Request("POST", url, data={"model": NAME}, files={"file": audio})
    body = form.read()
    one = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=30)
    try:
        one.request("POST", form.url.path, body, {**form.headers, **server.headers})
        yield
    finally:
        one.close()


@contextmanager
def idle_connections(server: Running, number: int, said: bytes = b"") -> Iterator[list[Any]]:
    """Connections that say nothing, or not the whole of a request."""
    address = urlsplit(server.url)
    with ExitStack() as stack:
        made = []
        for _ in range(number):
            try:
                one = socket.create_connection((address.hostname, address.port), timeout=2)
            except OSError:
                break
            made.append(stack.enter_context(one))
            if said:
                with suppress(OSError):
                    one.sendall(said)
        yield made


def at_once(number: int, work: Callable[[], int]) -> Counter[int]:
    """How often each status came."""
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(work())) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Counter(found)


# What others notice


def memory(server: Running, name: str = "VmRSS") -> float:
    """MB; ``VmHWM`` is the most since ``begin``."""
    for line in Path(f"/proc/{server.process.pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 1000
    return 0.0


def begin(server: Running) -> float:
    """Its memory in MB now, from where ``VmHWM`` begins anew."""
    Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")
    return memory(server)


def disk(server: Running) -> float:
    """MB of the files that it has open and that nobody else sees."""
    total = 0
    for file in Path(f"/proc/{server.process.pid}/fd").iterdir():
        with suppress(OSError):
            if "(deleted)" in os.readlink(file):
                total += file.stat().st_blocks * 512
    return total / 1e6


@dataclass
class Watch:
    """Clients that go on meanwhile, each with one request after the other, and the resources."""

    server: Running
    dictate: bool = True
    health: list[float] = field(default_factory=list)
    dictation: list[float] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)
    most_memory: float = 0.0
    before: float = 0.0
    most_disk: float = 0.0

    def __enter__(self) -> Watch:
        self.before = begin(self.server)
        self._end = threading.Event()
        works = [self._ask, self._measure] + ([self._speak] if self.dictate else [])
        self._threads = [threading.Thread(target=work) for work in works]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()
        if self.server.process.poll() is None:
            self.most_memory = memory(self.server, "VmHWM")

    def _measure(self) -> None:
        while not self._end.wait(0.1):
            with suppress(OSError):
                self.most_disk = max(self.most_disk, disk(self.server))

    def _ask(self) -> None:
        self._repeat(
            "health", self.health, lambda: httpx.get(f"{self.server.url}/health", timeout=20)
        )

    def _speak(self) -> None:
        recording = RECORDINGS / "one_two_three.wav"
        self._repeat("dictation", self.dictation, lambda: self.server.post(recording))

    def _repeat(self, name: str, times: list[float], ask: Callable[[], httpx.Response]) -> None:
        while not self._end.wait(0.05):
            began = time.monotonic()
            try:
                status = ask().status_code
            except httpx.TransportError as error:
                self.failed[f"{name}: {type(error).__name__}"] += 1
                continue
            if status == 200:
                times.append(time.monotonic() - began)
            else:
                self.failed[f"{name}: {status}"] += 1
