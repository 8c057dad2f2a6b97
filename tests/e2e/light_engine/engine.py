"""An STT engine that needs no packages, for tests of everything around it.

It tells how many bytes it was sent, and which model it has loaded since, as this project's server
does. ``stt:engine: custom`` brings it. The model ``broken`` does not load, and ``mine`` tells
nothing of itself.
"""

import http.server
import json
import os
from pathlib import Path
from typing import Any, ClassVar

KEY = Path(os.environ["STT_API_KEY_FILE"]).read_text().strip()
MODEL, PLACE = os.environ["STT_MODEL"], "/api/ps"
SHOWN = ("STT_MODEL", "STT_LANGUAGE", "STT_COMPUTE_TYPE", "STT_DEVICE", "STT_KEEP_ALIVE")


class Handler(http.server.BaseHTTPRequestHandler):
    # Head and body leave at once: a restart between them would cut an answer in two.
    wbufsize = -1
    loaded: ClassVar[set[str]] = set()

    def answer(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()

    def do_GET(self) -> None:
        if self.path == PLACE and MODEL != "mine":
            self.answer(200, {"models": sorted(self.loaded)})
        else:
            self.answer(200, {name: os.environ[name] for name in SHOWN})

    def do_DELETE(self) -> None:
        self.loaded.discard(self.path.removeprefix(f"{PLACE}/"))
        self.answer(200, {})

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers["Content-Length"]))
        right = self.headers.get("Authorization") == f"Bearer {KEY}"
        self.loaded.add(MODEL)
        said = {"text": f"{len(sent)} bytes"} if right else {"error": {"message": "another key"}}
        self.answer(200 if right else 401, said)


if MODEL == "broken":
    raise SystemExit("this model does not load")
address = os.environ["STT_HOST"], int(os.environ["STT_PORT"])
http.server.ThreadingHTTPServer(address, Handler).serve_forever()
