"""A small imitation of Ollama's registry, for machines that cannot reach the real one.

Ollama takes a model from any registry whose address its name begins with, over HTTPS only.
"""

from __future__ import annotations

import hashlib
import json
import ssl
import subprocess
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class OllamaRegistry(ThreadingHTTPServer):
    """Serves ``models`` (``library/NAME:TAG`` to a GGUF file) on ``address`` until ``close``.

    Its certificate is written into ``directory``; whoever asks has to trust it.
    """

    daemon_threads = True

    def __init__(self, address: str, models: Mapping[str, Path], directory: Path) -> None:
        super().__init__((address, 0), _Handler)
        self.certificate = directory / "registry.pem"
        key = directory / "registry.key"
        self._issue(address, key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, key)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.manifests: dict[str, bytes] = {}
        self.blobs: dict[str, bytes] = {}
        #: What was asked for: methods and paths.
        self.requests: list[str] = []
        for name, file in models.items():
            self._add(name, file.read_bytes())
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def _issue(self, address: str, key: Path) -> None:
        words = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=registry")
        names = ("-addext", f"subjectAltName=IP:{address}", "-days", "2")
        files = ("-keyout", str(key), "-out", str(self.certificate))
        subprocess.run(["openssl", *words, *names, *files], check=True, capture_output=True)

    @property
    def host(self) -> str:
        """What the names of its models begin with."""
        return f"{self.server_address[0]!s}:{self.server_address[1]}"

    def close(self) -> None:
        """Stop serving."""
        self.shutdown()
        self.server_close()

    def _blob(self, kind: str, content: bytes) -> dict[str, Any]:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.blobs[digest] = content
        return {"mediaType": kind, "digest": digest, "size": len(content)}

    def _add(self, name: str, gguf: bytes) -> None:
        layer = self._blob("application/vnd.ollama.image.model", gguf)
        # A layer of its own: what two models share is fetched once.
        parameters = {"num_thread": 1, "num_predict": 5, "stop": [name]}
        more = self._blob("application/vnd.ollama.image.params", json.dumps(parameters).encode())
        config = {
            "model_format": "gguf",
            "model_family": "llama",
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"], more["digest"]]},
        }
        kind = "application/vnd.docker.container.image.v1+json"
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": self._blob(kind, json.dumps(config).encode()),
            "layers": [layer, more],
        }
        model, _, tag = name.partition(":")
        self.manifests[f"/v2/{model}/manifests/{tag}"] = json.dumps(manifest).encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: OllamaRegistry

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class' name
        """Keep the output of the tests clean."""

    def do_HEAD(self) -> None:  # the base class' name
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        blob = self.server.blobs.get(self.path.rpartition("/")[2])
        content = self.server.manifests.get(self.path) or blob
        wanted = self.headers.get("Range", "").removeprefix("bytes=")
        if content is None:
            self.send_response(404)
            content = b'{"errors": [{"code": "MANIFEST_UNKNOWN"}]}'
        elif wanted:
            first, last = (int(each) for each in wanted.split("-"))
            content = content[first : last + 1]
            self.send_response(206)
        else:
            self.send_response(200)
        if blob and self.command == "GET" and not wanted:
            # It asks where the file is, and then for its parts.
            self.send_header("Location", self.path)
            content = b""
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)
