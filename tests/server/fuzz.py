"""Requests that a broken or hostile client might send, made at random from a seed."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlsplit

import numpy as np

from tests.server import attacks
from tests.server.server import NAME, RECORDINGS, Running, speech

ROUTE = b"/v1/audio/transcriptions"
ROUTES = (ROUTE, b"/v1/audio/translations", b"/health", b"/v1/models", b"/api/ps", b"/%00/..//")
#: Seconds in which an answer has to come.
ANSWER = 60


class Fuzz:
    """Makes requests; the same ones from the same seed, server's port and key aside."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.files = [path.read_bytes() for path in sorted(RECORDINGS.glob("*.wav"))] + [
            attacks.encoded(container, codec, iter([speech()]))
            for container, codec in (
                ("flac", "flac"),
                ("mp3", "libmp3lame"),
                ("ogg", "libopus"),
                ("webm", "libopus"),
                ("ipod", "aac"),
                ("aiff", "pcm_s16be"),
                ("matroska", "pcm_f32le"),
            )
        ]

    def request(self, server: Running) -> bytes:
        """The bytes of a request."""
        make: Callable[[], bytes] = self.chance.choice(
            [self.form, self.form, self.form, self.form, self.damaged_form, self.noise]
        )
        body = make()
        method = self.chance.choice([b"POST"] * 8 + [b"GET", b"DELETE", b"HEAD", b"PATCH"])
        route = self.chance.choice([ROUTE] * 8 + list(ROUTES))
        kind = self.chance.choice(
            [b"multipart/form-data; boundary=" + attacks.BOUNDARY.encode()] * 12
            + [
                b"multipart/form-data",
                b"multipart/form-data; boundary=",
                b"multipart/form-data; boundary=" + b"x" * 300,
                b"multipart/form-data; boundary=abuse; charset=" + self.word(),
                b"application/x-www-form-urlencoded",
                b"application/json",
                b"",
            ]
        )
        length = self.chance.choice(
            [len(body)] * 12 + [0, len(body) // 2, len(body) + 9, -1, 10**12]
        )
        head = [method + b" " + route + b" HTTP/1.1", b"Host: x", b"Content-Type: " + kind]
        head.append(b"Content-Length: %d" % length)
        head.append(b"Authorization: Bearer " + server.key.encode())
        if self.chance.random() < 0.1:
            head.append(self.word() + b": " + self.word())
        if self.chance.random() < 0.05:
            head.append(b"Expect: 100-continue")
        if self.chance.random() < 0.05:
            head.append(b"Transfer-Encoding: chunked")
        data = b"\r\n".join(head) + b"\r\n\r\n" + body
        return self.damage(data) if self.chance.random() < 0.05 else data

    def send(self, server: Running) -> int:
        """Send one; the status of the answer, 0 where there is none."""
        data, address = self.request(server), urlsplit(server.url)
        with socket.create_connection((address.hostname, address.port), ANSWER) as connection:
            answer = b""
            with suppress(OSError):
                for first in range(0, len(data), 60_000):
                    connection.sendall(data[first : first + 60_000])
                if self.chance.random() < 0.05:
                    return 0  # it leaves
                connection.shutdown(socket.SHUT_WR)
                while len(answer) < 4096 and (more := connection.recv(4096)):
                    answer += more
                    if b"100 Continue\r\n\r\n" in answer:
                        answer = answer.partition(b"\r\n\r\n")[2]
        words = answer.split(b" ", 2)
        return int(words[1]) if len(words) > 1 and words[1][:3].isdigit() else 0

    def form(self) -> bytes:
        """A form as the route wants it, with values of every sort."""
        parts = [(b'"model"', NAME.encode() if self.chance.random() < 0.9 else self.word())]
        for name, values in (
            (b'"language"', [b"en", b"fr", b""]),
            (b'"prompt"', [b"one", b"x" * 3000, self.word()]),
            (b'"response_format"', [b"json", b"text", b"srt", b"vtt", b"verbose_json", b"xml"]),
            (b'"temperature"', [b"0", b"1", b"nan", b"1e309", b"-0", self.word()]),
            (b'"timestamp_granularities[]"', [b"word", b"segment", self.word()]),
            (b'"stream"', [b"true", b"false", self.word()]),
            (self.word(), [self.word()]),
        ):
            if self.chance.random() < 0.3:
                parts.append((name, self.chance.choice(values)))
        file = self.chance.choice(self.files)
        if self.chance.random() < 0.7:
            file = self.damage(file)
        if self.chance.random() < 0.1:
            file = self.hostile()
        if self.chance.random() < 0.95:
            parts.append((b'"file"; filename="%s"' % self.word().replace(b'"', b""), file))
        self.chance.shuffle(parts)
        return b"".join(attacks.PART % name + value + b"\r\n" for name, value in parts) + (
            attacks.END if self.chance.random() < 0.95 else b""
        )

    def hostile(self) -> bytes:
        """What only looks like a recording."""
        makers: list[Callable[[], bytes]] = [
            attacks.hours_in_a_packet,
            lambda: b"v=0\nc=IN IP4 127.0.0.1\nm=audio 55555 RTP/AVP 0\n",
            lambda: b"ffconcat version 1.0\nfile '/etc/passwd'\n",
            lambda: b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1/x\n",
            lambda: b"",
            lambda: attacks.encoded("matroska", "pcm_f32le", iter([np.zeros(16000)])),
            lambda: self.chance.randbytes(self.chance.randrange(5000)),
        ]
        return self.chance.choice(makers)()

    def damaged_form(self) -> bytes:
        """A form with wrong bytes."""
        return self.damage(self.form())

    def noise(self) -> bytes:
        """Anything."""
        return self.chance.randbytes(self.chance.randrange(2000))

    def word(self) -> bytes:
        """A short text, often a strange one."""
        return self.chance.choice(
            [
                b"word",
                b"utf-16",
                b"punycode",
                "ключ 🎤".encode(),
                b"\xff\xfe\x00",
                b"../../etc/passwd",
                b"%s%n\x00",
                b"x" * 5000,
                b"",
                self.chance.randbytes(8).replace(b"\r", b"").replace(b"\n", b""),
            ]
        )

    def damage(self, data: bytes) -> bytes:
        """Some bytes changed, removed, doubled, or the end cut off."""
        made = bytearray(data)
        for _ in range(self.chance.choice([1, 2, 5, 50])):
            if not made:
                break
            place = self.chance.randrange(len(made))
            # Most of what decides is at the begin.
            place = self.chance.choice([place, place % 64, place % 512])
            size = self.chance.choice([1, 1, 1, 4, 40])
            match self.chance.randrange(4):
                case 0:
                    made[place] = self.chance.randrange(256)
                case 1:
                    made[place : place + size] = self.chance.choice([b"\0", b"\xff"]) * size
                case 2:
                    del made[place : place + size]
                case _:
                    made[place:place] = made[place : place + size]
        if self.chance.random() < 0.2:
            del made[self.chance.randrange(len(made) + 1) :]
        return bytes(made)
