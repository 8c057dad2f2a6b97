"""An archive with a program in Ollama's place: a server, and a client that asks it.

As Ollama does, it listens where ``OLLAMA_HOST`` says, and ``--version`` asks the server there.
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

VERSION = "0.0.1-stand-in"
_PROGRAM = f'''#!/usr/bin/env python3
import json, os, sys, urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOST, PORT = os.environ.get("OLLAMA_HOST", "127.0.0.1:11434").rsplit(":", 1)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        said = {{"/api/version": {{"version": "{VERSION}"}}}}.get(self.path, {{"models": []}})
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if sys.argv[1:] == ["serve"]:
    ThreadingHTTPServer((HOST, int(PORT)), Handler).serve_forever()
elif sys.argv[1:] == ["--version"]:
    with urllib.request.urlopen(f"http://{{HOST}}:{{PORT}}/api/version") as answer:
        print("ollama version is", json.load(answer)["version"])
'''


def make_archive(file: Path) -> str:
    """Write it; its path, for ``stt:sources.ollama``."""
    with tarfile.open(file, "w:gz") as archive:
        program = tarfile.TarInfo("bin/ollama")
        program.mode, program.size = 0o755, len(_PROGRAM.encode())
        archive.addfile(program, io.BytesIO(_PROGRAM.encode()))
    return str(file)
