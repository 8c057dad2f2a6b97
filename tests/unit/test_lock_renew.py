"""What publishers say is taken over; what cannot be reached stays."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from declaration.artifacts import Artifact, LockedFile, hub_name
from lock import __main__ as main
from lock.renew import NotReachedError, renew

BODY = b"{}"
SUM = hashlib.sha256(BODY).hexdigest()
OLD = {"model.bin": LockedFile(1, "0" * 64)}
REPOSITORY = {
    "sha": "1" * 40,
    "siblings": [
        {"rfilename": "model.bin", "size": 99, "lfs": {"sha256": "2" * 64, "size": 99}},
        {"rfilename": "config.json", "size": 2},
        {"rfilename": "README.md", "size": 2},
        {"rfilename": "huge.json", "size": 10**9},
    ],
}


class _Site(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class' name
        pass

    def do_HEAD(self) -> None:  # the base class' name
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        files = {
            "/api/models/a/b": json.dumps(REPOSITORY).encode(),
            "/api/models/a/empty": b'{"sha": "1", "siblings": []}',
            "/a/b/resolve/" + "1" * 40 + "/config.json": BODY,
            "/release/sums": f"{SUM}  ./one.zip\n{'3' * 64} *two.zip\n".encode(),
            "/release/one.zip": BODY,
            "/alone.sha256": SUM.encode(),
            "/alone": BODY,
        }
        found = files.get(self.path.split("?")[0])
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(found or b"")))
        self.end_headers()
        if body:
            self.wfile.write(found or b"")


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Site)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def artifact(name: str, **more: object) -> Artifact:
    values = {"version": "", "licence": "MIT", "source": "", "verified": "", **more}
    return Artifact(name, **values)  # type: ignore[arg-type]


def test_a_model_gets_the_newest_revision_and_its_files(site: str) -> None:
    old = artifact(hub_name("a/b"), version="0", files=OLD, patterns=["*.json", "model.bin"])
    found = renew(old, hub=site)
    assert (found.version, found.sums) == ("1" * 40, "the publisher")
    assert found.files == {
        "model.bin": LockedFile(99, "2" * 64),
        "config.json": LockedFile(2, SUM),
        "huge.json": LockedFile(10**9),
    }


def test_a_publisher_s_list(site: str) -> None:
    found = renew(artifact("pkg:x", listing=f"{site}/release/sums", patterns=["one.zip"]))
    assert found.files == {"one.zip": LockedFile(2, SUM)}
    found = renew(artifact("pkg:y", listing=f"{site}/alone.sha256", patterns=["alone"]))
    assert found.files == {"alone": LockedFile(2, SUM)}


def test_a_file_without_a_list_is_read_once(site: str) -> None:
    found = renew(artifact("pkg:x", source=f"{site}/alone", patterns=["alone"]))
    assert (found.files, found.sums) == ({"alone": LockedFile(2, SUM)}, "computed from the file")
    gone = artifact("pkg:x", source="http://127.0.0.1:1", patterns=["alone"], files=found.files)
    assert renew(gone) is gone


def test_what_nobody_hashes_is_not_asked() -> None:
    caddy = artifact("pkg:deb/caddy")
    assert renew(caddy) is caddy


@pytest.mark.parametrize(
    "more",
    [
        {"name": hub_name("a/none"), "patterns": ["*"]},
        {"name": hub_name("a/empty"), "patterns": ["*"]},
        {"name": "pkg:x", "listing": "SITE/release/sums", "patterns": ["three.zip"]},
        {"name": "pkg:x", "listing": "SITE/none", "patterns": ["one.zip"]},
        {"name": "pkg:x", "source": "http://127.0.0.1:1/x", "patterns": ["x"]},
    ],
)
def test_what_cannot_be_had_stays(
    site: str, more: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    said = {k: v.replace("SITE", site) if isinstance(v, str) else v for k, v in more.items()}
    old = artifact(**said)  # type: ignore[arg-type]
    with pytest.raises(NotReachedError, match=old.name):
        renew(old, hub=site)
    if "huggingface" not in old.name:
        assert main._renewed(old) is old
        assert f"kept as it was: {old.name}" in capsys.readouterr().err
