"""Programs that run by themselves in a machine, with the Python of what is installed there."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from agent.actions import Verify
from agent.compiled import add_compiled
from agent.machine import Machine, StepError
from components.agent import packed
from declaration.source_files import ROOT
from tests.model_hub import CARD, ModelHub

FETCH = ROOT / "stt_server" / "fetch_model.py"
CHECK = ROOT / "engines" / "speaches" / "machine" / "check_model.py"
MEMORY = ROOT / "operations" / "machine" / "memory.py"
MODELS = ROOT / "roles" / "ollama_server" / "machine" / "models.py"
VERIFY = ROOT / "roles" / "open_webui" / "machine" / "verify.py"
MODEL = ROOT / "models" / "tiny-digits"


def program(
    file: Path, *words: str, text: bool = False, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a file by itself; with ``text``, as the text that Python reads from its input."""
    return subprocess.run(
        [sys.executable, "-" if text else str(file), *words],
        input=file.read_text() if text else None,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **(environment or {})},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
    )


# The model hub


def at(url: str, home: Path) -> dict[str, str]:
    return {"HF_ENDPOINT": url, "HF_HOME": str(home / "home")}


@pytest.fixture
def hub() -> Iterator[ModelHub]:
    hub = ModelHub("127.0.0.1", {"a/digits": MODEL})
    yield hub
    hub.close()


@pytest.mark.parametrize(
    "text",
    [False, pytest.param(True, marks=pytest.mark.sweep)],
    ids=["a file", "text"],
)
def test_a_model_is_fetched(hub: ModelHub, tmp_path: Path, text: bool) -> None:
    words = ("a/digits", str(tmp_path / "model"), "digits", "*.json", "model.bin")
    done = program(FETCH, *words, text=text, environment=at(hub.url, tmp_path))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "model" / "model.bin").read_bytes() == (MODEL / "model.bin").read_bytes()
    assert not (tmp_path / "model" / "README.md").exists()


@pytest.mark.parametrize(
    ("known", "cached"),
    [
        (True, True),
        (False, False),
        *(pytest.param(each, not each, marks=pytest.mark.sweep) for each in (True, False)),
    ],
)
def test_a_revision_is_fetched_or_else_the_newest(
    hub: ModelHub, tmp_path: Path, known: bool, cached: bool
) -> None:
    """In the cache it is the one that is found without a revision."""
    revision = hub.revision("a/digits") if known else "0" * 40
    directory = "" if cached else str(tmp_path / "model")
    words = (f"a/digits@{revision}", directory, "digits", "*.json", "model.bin")
    done = program(FETCH, *words, environment=at(hub.url, tmp_path))
    assert done.returncode == 0, done.stderr
    assert (f"no revision {revision} there; the newest one" in done.stderr) == (not known)
    asked = [each for each in hub.requests if "GET" in each and "model.bin" in each]
    assert len(asked) == 1 and hub.revision("a/digits") in asked[0]
    if cached:
        entry = tmp_path / "home" / "hub" / "models--a--digits"
        newest = (entry / "refs" / "main").read_text()
        assert (entry / "snapshots" / newest / "model.bin").is_file()


@pytest.mark.parametrize(
    "cached",
    [pytest.param(False, marks=pytest.mark.seldom), True],
    ids=["a directory", "the hub's cache"],
)
def test_a_model_with_another_sum_is_fetched_again(
    hub: ModelHub, tmp_path: Path, cached: bool
) -> None:
    """What was refused is away for the hub's client too: else it would not fetch it again."""
    directory = "" if cached else str(tmp_path / "model")
    cache = tmp_path / "home" / "hub" / "models--a--digits" / "snapshots" / "*"
    place = str(cache) if cached else directory
    good = hashlib.sha256((MODEL / "model.bin").read_bytes()).hexdigest()
    for _ in range(2):
        words = ("a/digits", directory, "digits", "*.json", "model.bin")
        done = program(FETCH, *words, environment=at(hub.url, tmp_path))
        assert done.returncode == 0, done.stderr
        Verify(place, {"model.bin": good}).do(Machine())
        with pytest.raises(StepError, match=r"model\.bin has the SHA-256"):
            Verify(place, {"model.bin": "0" * 64}).do(Machine())
    assert sum("GET" in each and "model.bin" in each for each in hub.requests) == 2


def test_a_model_that_is_not_there(hub: ModelHub, tmp_path: Path) -> None:
    said = "stt:model digits: there is no a/other on the model hub. Check the name."
    words = ("a/other", str(tmp_path / "model"), "digits", "*")
    done = program(FETCH, *words, environment=at(hub.url, tmp_path))
    assert (done.returncode, done.stderr.strip().splitlines()[-1]) == (1, said)


def test_a_hub_that_is_out_of_reach(tmp_path: Path) -> None:
    words = ("a/digits", str(tmp_path / "model"), "digits", "*")
    nowhere = "http://127.0.0.1:9"
    done = program(FETCH, *words, environment=at(nowhere, tmp_path))
    assert done.returncode == 1
    assert "stt:model digits: the download from http" in done.stderr
    assert "stt:sources.models" in done.stderr
    assert "then run up again" in done.stderr and "Traceback" not in done.stderr


def test_without_its_words_it_says_its_usage() -> None:
    assert program(FETCH, "a/digits").stderr.startswith("usage: fetch_model.py REPOSITORY")


# Speaches' check of a model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    shutil.copytree(MODEL, directory)
    (directory / "README.md").write_text(CARD)
    return directory


@pytest.mark.seldom
@pytest.mark.parametrize("text", [False, True], ids=["a file", "text"])
def test_speaches_would_load_it(model: Path, text: bool) -> None:
    done = program(CHECK, str(model), "int8", "digits", text=text)
    assert done.returncode == 0, done.stderr


def test_the_card_that_is_written_for_a_directory_is_enough(model: Path) -> None:
    shutil.copy(CHECK.with_name("model_card.md"), model / "README.md")
    assert program(CHECK, str(model), "int8", "digits").returncode == 0


@pytest.mark.parametrize(
    "card",
    [
        None,
        pytest.param("no front matter", marks=pytest.mark.seldom),
        pytest.param(CARD.replace("ctranslate2", "pytorch"), marks=pytest.mark.seldom),
    ],
)
def test_speaches_would_refuse_it(model: Path, card: str | None) -> None:
    (model / "README.md").unlink()
    if card is not None:
        (model / "README.md").write_text(card)
    done = program(CHECK, str(model), "int8", "digits")
    assert done.returncode == 1
    said = done.stderr.splitlines()[-1]
    assert said.startswith("stt:model digits: its README does not say")


def test_a_broken_model_is_said_to_be_so(model: Path) -> None:
    (model / "model.bin").write_bytes(b"GGUF" * 1000)
    done = program(CHECK, str(model), "int8", "digits")
    assert done.returncode == 1 and "stt:model digits does not load (" in done.stderr


# Services, as small imitations


class Imitation(ThreadingHTTPServer):
    """Answers with ``answers`` by method and path, and notes what it gets."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, tuple[int, Any]] = {}
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    server: Imitation

    def _answer(self) -> None:
        what = f"{self.command} {self.path}"
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.got.append((what, dict(self.headers), body))
        status, said = self.server.answers.get(what, (404, {"detail": "not found"}))
        if what == "POST /api/generate":
            self.server.answers["GET /api/ps"] = (200, {"models": []})
        data = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_DELETE = _answer  # noqa: N815  # http.server's names

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def imitation() -> Iterator[Imitation]:
    server = Imitation()
    yield server
    server.shutdown()
    server.server_close()


ACCOUNT = {"WEBUI_ADMIN_EMAIL": "a@b.test", "WEBUI_ADMIN_PASSWORD": "pass"}
#: What the step gives the program besides; where the agent's sources are, as here it has no file.
GIVEN = {"PYTHONPATH": str(ROOT), "STT_WORDS": "one two three", "STT_ERROR_RATE": "0.34", **ACCOUNT}
SIGN_IN, TRANSCRIBE = "POST /api/v1/auths/signin", "POST /api/v1/audio/transcriptions"
RECORDING = str(ROOT / "recordings" / "one_two_three.wav")


def test_open_webui_signs_in_and_transcribes(imitation: Imitation) -> None:
    imitation.answers = {SIGN_IN: (200, {"token": "t"}), TRANSCRIBE: (200, {"text": " one two "})}
    proxy = {"http_proxy": "http://127.0.0.1:9"}
    done = program(VERIFY, imitation.url, RECORDING, environment=GIVEN | proxy)
    found = json.loads(done.stdout)
    assert found.pop("seconds") >= 0
    proven = {"proven": True, "word_error_rate": 0.333}
    assert found == {"signed_in": True, "text": "one two", **proven}
    (_, _, account), (_, headers, form) = imitation.got
    assert json.loads(account) == {"email": "a@b.test", "password": "pass"}
    assert headers["Authorization"] == "Bearer t"
    assert b'name="file"; filename="recording.wav"' in form
    assert Path(RECORDING).read_bytes() in form


@pytest.mark.parametrize("heard", ["five five", "one two three and a half"])
def test_open_webui_that_hears_other_words_fails(imitation: Imitation, heard: str) -> None:
    imitation.answers = {SIGN_IN: (200, {"token": "t"}), TRANSCRIBE: (200, {"text": heard})}
    done = program(VERIFY, imitation.url, RECORDING, environment=GIVEN)
    assert (done.returncode, done.stdout) == (1, "")
    said = f'Open WebUI\'s STT service transcribed a recording of "one two three" as "{heard}": a'
    assert done.stderr.startswith(said) and "stt:webui.stt_url" in done.stderr
    # Where the words are not known, nothing is proven.
    done = program(VERIFY, imitation.url, RECORDING, environment=GIVEN | {"STT_WORDS": ""})
    found = json.loads(done.stdout)
    assert (found["text"], found["proven"]) == (heard, False) and "word_error_rate" not in found


def test_the_agent_s_file_has_what_open_webui_is_verified_with(
    imitation: Imitation, tmp_path: Path
) -> None:
    """As in a machine: the one file, under a name without an ending, beside the programs."""
    (tmp_path / "packed.pyz").write_bytes(packed())
    add_compiled(tmp_path / "packed.pyz")
    (tmp_path / "agent").symlink_to("packed.pyz")
    verify = tmp_path / "programs" / "verify.py"
    verify.parent.mkdir()
    shutil.copy(VERIFY, verify)
    imitation.answers = {SIGN_IN: (200, {"token": "t"}), TRANSCRIBE: (200, {"text": "1 2 3"})}
    given = {name: text for name, text in GIVEN.items() if name != "PYTHONPATH"}
    done = program(verify, imitation.url, RECORDING, environment=given)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["word_error_rate"] == 0.0


def test_open_webui_without_a_recording_only_signs_in(imitation: Imitation) -> None:
    imitation.answers = {SIGN_IN: (200, {"token": "t"})}
    done = program(VERIFY, imitation.url, environment={**ACCOUNT, "PYTHONPATH": str(ROOT)})
    assert json.loads(done.stdout) == {"signed_in": True} and len(imitation.got) == 1


@pytest.mark.parametrize(
    "status", [400, *(pytest.param(each, marks=pytest.mark.seldom) for each in (401, 403, 429))]
)
@pytest.mark.parametrize("accepted", [True, False])
def test_open_webui_is_verified_where_the_password_is_refused(
    imitation: Imitation, tmp_path: Path, status: int, accepted: bool
) -> None:
    """Such as for too many wrong tries of somebody else. The token that is made has to work."""
    verify = tmp_path / "verify.py"
    verify.write_text(VERIFY.read_text())
    (tmp_path / "accounts.py").write_text("print('a line')\nprint('made-token')\n")
    session = "GET /api/v1/auths/"
    imitation.answers = {SIGN_IN: (status, ""), session: (200 if accepted else 401, {})}
    done = program(verify, imitation.url, environment={**ACCOUNT, "PYTHONPATH": str(ROOT)})
    assert imitation.got[1][0] == session
    assert imitation.got[1][1]["Authorization"] == "Bearer made-token"
    if accepted:
        assert json.loads(done.stdout) == {"signed_in": True}
    else:
        assert done.returncode != 0 and "HTTP status 401" in done.stderr


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({SIGN_IN: (500, "down")}, 'Open WebUI answered with HTTP status 500: "down"'),
        ({SIGN_IN: (401, "")}, "The administrator's account cannot be used: "),
        pytest.param(
            {SIGN_IN: (200, {"token": "t"}), TRANSCRIBE: (400, {"detail": "no STT"})},
            'Open WebUI answered with HTTP status 400: {"detail": "no STT"}',
            marks=pytest.mark.sweep,
        ),
        (
            {SIGN_IN: (200, {"token": "t"}), TRANSCRIBE: (200, {"text": " "})},
            "Open WebUI transcribed a recording of spoken words as nothing.",
        ),
    ],
)
def test_open_webui_s_errors(
    imitation: Imitation, answers: dict[str, tuple[int, Any]], said: str
) -> None:
    imitation.answers = answers
    done = program(VERIFY, imitation.url, RECORDING, environment=GIVEN)
    assert done.returncode == 1 and done.stderr.startswith(said)


def test_open_webui_that_is_not_there() -> None:
    done = program(VERIFY, "http://127.0.0.1:9", environment={**ACCOUNT, "PYTHONPATH": str(ROOT)})
    assert done.stderr.startswith("Open WebUI does not answer: ")


@pytest.fixture
def asked(imitation: Imitation, tmp_path: Path) -> dict[str, str]:
    (tmp_path / "authorization").write_text("Authorization: Bearer k\n")
    file = str(tmp_path / "authorization")
    return {"stt": imitation.url, "ollama": "", "authorization": file}


def memory(verb: str, asked: dict[str, str]) -> Any:
    done = program(MEMORY, verb, json.dumps(asked), text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_memory_of_the_stt_service(imitation: Imitation, asked: dict[str, str]) -> None:
    imitation.answers = {
        "GET /api/ps": (200, {"models": ["a/b"]}),
        "DELETE /api/ps/a%2Fb": (200, 1),
    }
    assert memory("status", asked) == {
        "stt": {"answers": True, "models": ["a/b"]},
        "ollama": None,
    }
    assert memory("flush", asked) == {"stt": "unloaded"}
    assert {headers["Authorization"] for _, headers, _ in imitation.got} == {"Bearer k"}
    imitation.answers["DELETE /api/ps/a%2Fb"] = (409, 1)
    assert memory("flush", asked) == {"stt": "busy"}
    imitation.answers["GET /api/ps"] = (200, {"models": []})
    assert memory("flush", asked) == {"stt": "nothing"}
    del imitation.answers["GET /api/ps"]
    assert memory("flush", asked) == {"stt": "cannot"}
    assert memory("flush", asked | {"stt": "http://127.0.0.1:9"}) == {"stt": "silent"}


def test_what_does_not_unload_is_restarted_where_that_is_asked(
    imitation: Imitation, asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    systemctl, calls = tmp_path / "systemctl", tmp_path / "calls"
    systemctl.write_text(
        f'#!/bin/sh\necho "$@" >>{calls}\necho noise\ntest ! -e {tmp_path}/fails\n'
    )
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    asked["restart"] = {"stt": "custom"}
    imitation.answers = {"GET /api/ps": (200, {"models": []})}
    assert memory("flush", asked) == {"stt": "nothing"} and not calls.exists()
    del imitation.answers["GET /api/ps"]
    assert memory("flush", asked) == {"stt": "restarted"}
    assert calls.read_text() == "try-restart custom\n"
    (tmp_path / "fails").touch()
    assert memory("flush", asked) == {"stt": "cannot"}


def test_ollama_s_models_are_pulled_with_their_size(imitation: Imitation, tmp_path: Path) -> None:
    part = {"status": "pulling 1", "digest": "sha256:1", "total": 2_019_000_000}
    imitation.answers = {"POST /api/pull": (200, part)}
    port = str(imitation.server_address[1])
    done = program(MODELS, "pull", port, str(tmp_path), "llama3.2")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"models": ["llama3.2"]})
    assert done.stderr == "pulling llama3.2\npulling llama3.2: 2.0 GB\n"
    imitation.answers = {"POST /api/pull": (200, {"error": "no such model"})}
    done = program(MODELS, "pull", port, str(tmp_path), "nowhere")
    assert (done.returncode, done.stderr) == (1, "pulling nowhere\nnowhere: no such model\n")


def test_ollama_s_models_are_pulled_by_one_machine_at_a_time(
    imitation: Imitation, tmp_path: Path
) -> None:
    imitation.answers = {"POST /api/show": (200, {})}
    words = ("pull", str(imitation.server_address[1]), str(tmp_path), "llama3.2")
    held = os.open(tmp_path / ".ollama.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(held, fcntl.LOCK_EX)
    with subprocess.Popen(
        [sys.executable, str(MODELS), *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr and process.stdout
        assert process.stderr.readline() == b"waiting for models that another machine pulls\n"
        assert imitation.got == []
        os.close(held)
        assert json.loads(process.stdout.read()) == {"models": ["llama3.2"]}


def test_ollama_s_models_tell_how_far_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from roles.ollama_server.machine import models

    now = iter([0.0, 5.0, 20.0, 40.0])
    monkeypatch.setattr("time.monotonic", lambda: next(now))
    progress = models.Progress("llama3.2")
    for came in (0, 50_000_000, 400_000_000, 400_000_000):
        progress.tell({"digest": "sha256:1", "total": 2_000_000_000, "completed": came})
    assert capsys.readouterr().err.splitlines() == [
        "pulling llama3.2: 2.0 GB",
        "pulling llama3.2: 0.4 of 2.0 GB, 20 MB/s, about 1 min left",
        "pulling llama3.2: 0.4 of 2.0 GB, 0 MB/s",
    ]


def test_memory_of_ollama(imitation: Imitation, asked: dict[str, str]) -> None:
    loaded = {"name": "tiny", "size": 1, "size_vram": 2, "expires_at": "x", "digest": "y"}
    imitation.answers = {"GET /api/ps": (200, {"models": [loaded]})}
    asked |= {"stt": "", "ollama": imitation.url}
    known = {key: value for key, value in loaded.items() if key != "digest"}
    assert memory("status", asked) == {"stt": None, "ollama": {"answers": True, "models": [known]}}
    assert memory("flush", asked) == {"ollama": "unloaded"}
    assert memory("flush", asked) == {"ollama": "nothing"}
    bodies = [json.loads(body) for what, _, body in imitation.got if what == "POST /api/generate"]
    assert bodies == [{"model": "tiny", "keep_alive": 0, "stream": False}]
