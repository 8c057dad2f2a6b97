"""An STT engine that needs no packages, for tests of everything around it.

It tells how many bytes it was sent. ``stt:engine: custom`` brings it. The model ``broken`` does not
load.
"""

import http.server
import json
import os
from pathlib import Path

KEY = Path(os.environ["STT_API_KEY_FILE"]).read_text().strip()
SHOWN = ("STT_MODEL", "STT_LANGUAGE", "STT_COMPUTE_TYPE", "STT_DEVICE", "STT_KEEP_ALIVE")


class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, status: int, body: dict[str, str]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        self.answer(200, {name: os.environ[name] for name in SHOWN})

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers["Content-Length"]))
        right = self.headers.get("Authorization") == f"Bearer {KEY}"
        self.answer(200 if right else 401, {"text": f"{len(sent)} bytes"})


if os.environ["STT_MODEL"] == "broken":
    raise SystemExit("this model does not load")
address = os.environ["STT_HOST"], int(os.environ["STT_PORT"])
http.server.ThreadingHTTPServer(address, Handler).serve_forever()
