"""``stand_in.py PORT CONTROL``: a server that answers with the SHA-256 of the file it got.

CONTROL is a file with JSON, which it reads for every answer: ``health`` (a status), ``path`` (the
only one that tells it; others are unknown, as with an engine of one's own), ``working`` (s),
``status`` of its answers to work, ``seconds`` that they take (as the file has it meanwhile, too),
``seen`` events of a stream, ``key`` that it asks for.
``GET /v1/stream`` sends events, each once the one before was seen, and ``GET /v1/realtime`` is a
WebSocket that sends back what it gets.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import threading
import time
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

CONTROL = Path(sys.argv[2])
#: RFC 6455.
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def control() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(CONTROL.read_text())
    return found


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    at_work = 0
    most = 0
    begun = 0
    lock = threading.Lock()

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def _answer(self, status: int, body: Any, **headers: str) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def _refuses(self) -> bool:
        """Whether it asks for another key than the one that was sent, and says so."""
        key = control().get("key")
        if key is None or self.headers["Authorization"] == f"Bearer {key}":
            return False
        self._answer(401, {"error": {"message": "the key"}})
        return True

    def do_GET(self) -> None:
        """Health, events, a WebSocket, and what it was sent."""
        asked = control()
        if self.path.startswith("/v1/") and self.path != asked.get("path") and self._refuses():
            return
        if self.path in ("/ready", "/health") and "path" in asked:
            self._answer(404, {})
        elif self.path in ("/ready", "/health", asked.get("path")):
            self._answer(asked.get("health", 200), {"working": asked.get("working", 0)})
        elif self.path == "/v1/stream":
            self._stream()
        elif self.path == "/v1/realtime":
            self._realtime()
        elif self.path == "/v1/work":
            self._answer(200, {"begun": Handler.begun, "most": Handler.most})
        else:
            self._answer(200, {"path": self.path, "headers": dict(self.headers)})

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        for number in range(3):
            self.wfile.write(f"data: {number}\n\n".encode())
            self.wfile.flush()
            end = time.monotonic() + 15
            while control().get("seen", 0) <= number:
                if time.monotonic() > end:
                    self.wfile.write(b"data: unseen\n\n")
                    return
                time.sleep(0.02)

    def _realtime(self) -> None:
        key = self.headers["Sec-WebSocket-Key"].encode()
        accept = base64.b64encode(hashlib.sha1(key + _GUID).digest()).decode()
        self.send_response(101)
        for name, value in (
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Accept", accept),
        ):
            self.send_header(name, value)
        self.end_headers()
        while data := self.connection.recv(1 << 16):  # frames, as they are
            self.connection.sendall(data)
        self.close_connection = True

    def do_POST(self) -> None:
        """The hash of the file that a form has, or of the body."""
        with Handler.lock:
            Handler.begun += 1
            Handler.at_work += 1
            Handler.most = max(Handler.most, Handler.at_work)
        try:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            asked, began = control(), time.monotonic()
            kind = self.headers["Content-Type"] or ""
            if "multipart" in kind:
                head = f"Content-Type: {kind}\r\n\r\n".encode()
                parts = message_from_bytes(head + body).get_payload()
                assert isinstance(parts, list)
                file = next(p for p in parts if p.get_filename())  # type: ignore[union-attr]
                body = file.get_payload(decode=True)  # type: ignore[union-attr, assignment]
            if self._refuses():
                return
            text = hashlib.sha256(body).hexdigest()
            while (left := began + control().get("seconds", 0) - time.monotonic()) > 0:
                time.sleep(min(left, 0.02))
            status = asked.get("status", 200)
            if status == 200:
                self._answer(200, {"text": text})
            else:
                self._answer(status, {"error": {"message": f"a {status} of a server"}})
        finally:
            with Handler.lock:
                Handler.at_work -= 1


class Server(ThreadingHTTPServer):
    """One with a long queue of connections, and no words about those that break."""

    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: Any) -> None:
        """Nothing."""


if __name__ == "__main__":
    Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
