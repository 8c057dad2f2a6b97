"""Open WebUI after `up`: wired to both services, with its keys, its administrator and HTTPS.

Each `up` that changes something for Open WebUI restarts it, which takes long. So a test does not
put back what it has changed: the next one does that, with what it changes itself.
"""

from __future__ import annotations

import copy
import json
import re
import socket
import sqlite3
import ssl
import tarfile
import threading
import time
import urllib.request
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from roles.open_webui.service import DECLARED
from tests.e2e.calls_out import heard
from tests.e2e.ollama import OLLAMA, make_tiny_llm
from tests.e2e.project import (
    RECORDINGS,
    Project,
    incus,
    left_of,
    machine,
    post_recording,
    request,
    run,
    wait_until,
    way_out,
)
from tests.e2e.webui import CHROMIUM, browser, dictate, enter, keep, sign_in, visit

DOMAIN, SUBNET, PORT = "stt-e2e-u", "10.213.50", 28150
UNIT = "open-webui"
CLEANING = "/etc/tmpfiles.d/60-incus-stt-open-webui.conf"
#: The settings of the first `up`.
FIRST: dict[str, Any] = {}

needs_chromium = pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium on PATH")


@pytest.fixture(scope="module")
def wired(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A domain with both machines, up."""
    stack = Project(tmp_path_factory.mktemp("webui"), DOMAIN, SUBNET)
    stt = ["base_system", *(["ollama_server"] if OLLAMA else []), "stt_server"]
    stack.machines = {
        "gpu-server": machine(*stt),
        "webui": machine("base_system", "open_webui"),
    }
    stack.set(
        sources={"ollama": OLLAMA} if OLLAMA else None, webui={"publish": f"127.0.0.1:{PORT}"}
    )
    try:
        stack.up()
        FIRST.update(copy.deepcopy(stack.settings))
        yield stack
    finally:
        stack.destroy()
    assert left_of(DOMAIN) == []


@pytest.fixture
def project(wired: Project) -> Project:
    """The domain; its stack's file is as at first, and the next `up` makes that so."""
    wired.settings = copy.deepcopy(FIRST)
    wired.write()
    return wired


@pytest.fixture
def settled(project: Project) -> Project:
    """The domain as at first."""
    project.settle()
    return project


def wire(project: Project, **settings: Any) -> None:
    """Change ``stt:webui``; None takes a key back to its default."""
    merged = {**project.settings["webui"], **settings}
    project.set(webui={key: value for key, value in merged.items() if value is not None})


def inside(project: Project, *command: str) -> str:
    return project.inside(*command, machine="webui")


def test_open_webui_transcribes_after_up(settled: Project) -> None:
    outputs = settled.outputs()
    assert outputs["webui_check"]["signed_in"] is True
    assert outputs["webui_check"]["text"] == "one two three"
    assert outputs["webui_check"]["proven"] is True
    assert outputs["webui_check"]["word_error_rate"] == 0
    assert outputs["webui_url"] == f"http://localhost:{PORT}"
    assert request(f"http://{settled.subnet}.2:3000/ready").status == 200
    assert inside(settled, "systemctl", "is-active", UNIT) == "active"
    assert inside(settled, "systemctl", "show", "-P", "User", UNIT) == "webui"
    assert settled.unchanged()


def exposure(project: Project, unit: str) -> float:
    """What systemd says of a unit; the less, the better."""
    said = inside(project, "systemd-analyze", "security", "--no-pager", f"{unit}.service")
    return float(re.findall(r": ([\d.]+) ", said.splitlines()[-1])[0])


def opens_channel(origin: str) -> bool:
    """Whether a page of this origin gets the WebSocket on which answers come."""
    url = f"ws://127.0.0.1:{PORT}/ws/socket.io/?EIO=4&transport=websocket"
    try:
        with connect(url, origin=Origin(origin), proxy=None):
            return True
    except InvalidStatus:
        return False


def test_only_its_own_pages_are_answered(settled: Project) -> None:
    """By the API with cookies, and by the socket on which answers come."""
    assert exposure(settled, UNIT) <= 1.5
    address = f"http://127.0.0.1:{PORT}"
    own = [f"http://localhost:{PORT}", address, f"http://{settled.subnet}.2:3000"]
    with httpx.Client(base_url=address, trust_env=False, timeout=60) as client:
        for origin, mine in [*((each, True) for each in own), ("http://evil.test", False)]:
            headers = {"Origin": origin}
            answer = client.get("/api/config", headers=headers)
            allowed = answer.headers.get("access-control-allow-origin")
            assert allowed == (origin if mine else None), origin
            assert opens_channel(origin) == mine, origin
        for path in ("/docs", "/openapi.json"):
            assert "openapi" not in client.get(path).text, path


@pytest.mark.parametrize(
    ("neighbour", "url"),
    [("webui", "http://gpu-server:8000/health"), ("gpu-server", "http://webui:3000/ready")],
)
def test_bare_names_work_every_time(settled: Project, neighbour: str, url: str) -> None:
    """With cold and with warm caches: every seventh time the cache is empty."""
    bridge = f"net-{DOMAIN}"
    wait_until(lambda: way_out(bridge) == bridge)  # its name server starts anew then
    script = (
        "for i in $(seq 100); do [ $((i % 7)) -gt 0 ] || resolvectl flush-caches; "
        f"curl -sf -m 30 -o /dev/null {url} || echo $i; done"
    )
    assert settled.inside("sh", "-c", script, machine=neighbour) == ""


@pytest.mark.parametrize("recording", sorted(path.stem for path in RECORDINGS.glob("*.wav")))
def test_recordings_come_back_as_their_words(settled: Project, recording: str) -> None:
    assert sign_in(settled).text_of(recording) == recording.replace("_", " ")


@needs_chromium
def test_somebody_dictates_in_a_browser(settled: Project) -> None:
    """The microphone button works the first time; where there is Ollama, it answers."""
    if OLLAMA:
        make_tiny_llm(settled)
    with browser("hello_world") as page:
        enter(page, settled)
        dictate(page)
        page.wait_for_function("document.querySelector('#chat-input').innerText.trim()")
        assert page.inner_text("#chat-input").strip() == "hello world"
        keep(page, "3-words")
        if OLLAMA:
            page.click("#send-message-button")
            answer = page.locator("[id^=response-content-container]").first
            page.wait_for_selector("[aria-label='Regenerate']")  # the answer is complete
            keep(page, "4-answer")
            assert answer.inner_text().strip()
            assert not page.get_by_text("does not support").count()


def test_the_installed_version_reads_every_variable(settled: Project) -> None:
    """A name that a version does not know is ignored in silence; here it is an error."""
    files = ("/etc/incus-stt/open-webui.env", "/etc/incus-stt/open_webui/secrets.env")
    ours = inside(settled, "sed", "-n", "/^#/d; s/=.*//p", *files).split()
    packages = "/opt/incus-stt/open-webui-*/lib/python3*/site-packages"
    # The shell's own, and those of libraries: Chroma's, ONNX Runtime's, and the common ones.
    others = {"HOME", "ANONYMIZED_TELEMETRY", "ORT_DISABLE_TELEMETRY", "DO_NOT_TRACK"}
    others.add("SCARF_NO_ANALYTICS")
    for name in (set(ours) - others) | set(DECLARED.values()):
        search = f"cd {packages}/open_webui && grep -qF \"'{name}'\" env.py config.py __init__.py"
        inside(settled, "sh", "-c", search)
    assert set(DECLARED) <= set(ours)


def test_recordings_are_kept_for_an_hour(settled: Project) -> None:
    """And what was read aloud, which is kept beside them."""
    cache = "/srv/webui/open-webui/data/cache/audio"
    sign_in(settled).text_of("one_two_three")
    seen = inside(settled, "sh", "-c", f"ls {cache}/transcriptions")
    assert ".wav" in seen and ".json" in seen
    inside(settled, "systemd-tmpfiles", "--clean")
    assert inside(settled, "sh", "-c", f"ls {cache}/transcriptions") == seen
    # An hour later; a file's own times cannot be set back, so the age is what is changed.
    now = f"sed -i 's/1h/1s/' {CLEANING} && systemd-tmpfiles --clean"
    assert settled.inside("test", "-d", f"{cache}/speech", machine="webui") == ""
    time.sleep(1.1)
    inside(settled, "sh", "-c", now)
    try:
        assert inside(settled, "sh", "-c", f"ls {cache}/transcriptions {cache}/speech").split() == [
            f"{cache}/speech:",
            f"{cache}/transcriptions:",
        ]
        timer = "systemd-tmpfiles-clean.timer"
        assert "1h" in inside(settled, "systemctl", "show", "-P", "TimersMonotonic", timer)
    finally:
        inside(settled, "sed", "-i", "s/1s/1h/", CLEANING)
    assert settled.drift() == []


def test_long_and_large_recordings(settled: Project, tmp_path: Path) -> None:
    admin = sign_in(settled)
    with wave.open(str(RECORDINGS / "four_five_six.wav")) as one:
        sound, shape = one.readframes(one.getnframes()), one.getparams()
    bytes_a_second = shape.framerate * shape.sampwidth * shape.nchannels
    # Few sentences: without the silence they are one window for Whisper, and a model that learned
    # single sentences loses words at its end.
    for times, pause in ((3, 60), (4, 205)):
        part = sound + bytes(pause * bytes_a_second - len(sound))
        long = tmp_path / f"{times}.wav"
        with wave.open(str(long), "wb") as file:
            file.setparams(shape)
            file.writeframes(part * times)
        answer = admin.transcribe(long)
        assert answer.status == 200, answer.body
        assert answer.json["text"].startswith("four five six")
        assert len(answer.json["text"].split()) >= 2 * times
    assert long.stat().st_size > 26_000_000


def sign_up(project: Project) -> int:
    """Somebody makes an account; the status of the answer."""
    body = json.dumps({"name": "A", "email": "a@example.com", "password": "secret-of-a"}).encode()
    kind = {"Content-Type": "application/json"}
    url = f"{sign_in(project).url}/api/v1/auths/signup"
    return request(url, data=body, headers=kind).status


@pytest.mark.seldom
def test_what_is_declared_wins_and_what_an_administrator_set_stays(project: Project) -> None:
    """The database holds a value for every setting, and would win for ever."""
    admin = sign_in(project)
    audio = admin.call("api/v1/audio/config").json
    assert audio["stt"]["OPENAI_API_BASE_URL"] == project.outputs()["stt_url"]
    assert audio["stt"]["OPENAI_API_KEY"] == project.outputs()["stt_api_key"]
    assert audio["stt"]["MODEL"] == "whisper-1"
    elsewhere = f"http://{project.subnet}.1:9/v1"
    audio["stt"] |= {"OPENAI_API_BASE_URL": elsewhere, "MODEL": "", "OPENAI_API_KEY": ""}
    audio["tts"]["VOICE"] = "by-hand"
    done = admin.call("api/v1/audio/config/update", body=audio)
    assert done.status == 200, done.body
    assert admin.transcribe(RECORDINGS / "hello_world.wav").status != 200

    project.set(port=8100, language="en")
    wire(project, ollama_url=f"http://{project.subnet}.9:11434", signup=True)
    project.up()
    assert project.outputs()["webui_check"]["text"] == "one two three"
    admin = sign_in(project)
    assert admin.text_of("four_five_six") == "four five six"
    audio = admin.call("api/v1/audio/config").json
    assert audio["stt"]["ENGINE"] == "openai"
    assert audio["stt"]["OPENAI_API_BASE_URL"] == f"http://{project.subnet}.1:8100/v1"
    assert audio["stt"]["MODEL"] == "whisper-1"
    assert audio["tts"]["VOICE"] == "by-hand"
    ollama = admin.call("ollama/config").json
    assert ollama["OLLAMA_BASE_URLS"] == [f"http://{project.subnet}.9:11434"]
    assert ollama["ENABLE_OLLAMA_API"] is True
    assert sign_up(project) == 200


@pytest.mark.seldom
def test_what_the_stt_service_is_asked(project: Project) -> None:
    """Model, key and language, as another STT service sees them.

    Meanwhile the administrator's password is changed by hand: it stays, and `up` gets in all the
    same.
    """
    asked: list[dict[str, Any]] = []

    async def transcribe(request: Request) -> JSONResponse:
        async with request.form() as form:
            asked.append({**form, "key": request.headers["Authorization"]})
        return JSONResponse({"text": "one two three"})

    route = Route("/v1/audio/transcriptions", transcribe, methods=["POST"])
    with socket.socket() as listener:
        listener.bind((f"{project.subnet}.254", 0))
        port = listener.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(Starlette(routes=[route]), log_level="error"))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        project.set(language="en")
        wire(project, stt_url=f"http://{project.subnet}.254:{port}/v1")
        project.up()
        # Not the key of this stack: the service is somebody else's.
        assert [each["key"].strip() for each in asked] == ["Bearer"]
        chosen = "chosen-by-a-person"
        body = {"password": project.outputs()["webui_admin_password"], "new_password": chosen}
        changed = sign_in(project).call("api/v1/auths/update/password", body=body)
        assert changed.status == 200, changed.body
        own = "pulumi config set --secret --path stt:webui.sttKey"
        done = project.shell(f"printf key-of-theirs | {own}")
        assert done.returncode == 0, done.stderr
        assert "key-of-theirs" not in project.up()
        assert sign_in(project, password=chosen).text_of("hello_world") == "one two three"
        server.should_exit = True
        thread.join()
    expected = {"model": "whisper-1", "language": "en", "key": "Bearer key-of-theirs"}
    assert len(asked) == 2
    assert expected.items() <= asked[1].items(), asked


@pytest.mark.seldom
def test_a_declared_password_takes_effect(project: Project) -> None:
    password = 'of the "operator" $HOME \\ `x` é'
    file = project.root / "password"
    file.write_text(password)
    done = project.shell(f"pulumi config set --secret stt:adminPassword <{file}")
    assert done.returncode == 0, done.stderr
    assert password not in project.up()
    assert project.outputs()["webui_admin_password"] == password
    sign_in(project, password=password)  # not the one that was chosen by hand


@pytest.mark.seldom
def test_another_administrator_is_made(project: Project) -> None:
    wire(project, adminEmail="second@example.com")
    project.up()
    second = sign_in(project, "second@example.com")
    assert second.call("api/v1/auths/").json["role"] == "admin"


@pytest.mark.seldom
def test_what_is_put_back_is_as_at_first(settled: Project) -> None:
    assert sign_up(settled) == 403
    assert sign_in(settled).call("ollama/config").json["ENABLE_OLLAMA_API"] is bool(OLLAMA)
    assert sign_in(settled).text_of("hello_world") == "hello world"


@pytest.mark.seldom
def test_another_key_reaches_both_sides(settled: Project) -> None:
    old = settled.outputs()["stt_api_key"]
    done = settled.make("rotate-key")
    assert done.returncode == 0, done.stdout + done.stderr
    new = settled.outputs()["stt_api_key"]
    assert new != old
    url, recording = settled.outputs()["stt_url"], RECORDINGS / "hello_world.wav"
    assert post_recording(url, recording, "whisper-1", old).status == 401
    assert post_recording(url, recording, "whisper-1", new).status == 200
    assert sign_in(settled).text_of("hello_world") == "hello world"
    assert settled.unchanged()


def test_secrets_stand_nowhere_in_plain(project: Project) -> None:
    outputs = project.outputs()
    secrets = [outputs["stt_api_key"], outputs["webui_admin_password"]]
    seen = inside(project, "sh", "-c", "cat /proc/[0-9]*/cmdline; journalctl --no-pager")
    state = "".join(
        path.read_text(errors="replace")
        for path in (project.root / "state").rglob("*")
        if path.is_file()
    )
    for secret in secrets:
        assert secret not in seen
        assert secret not in state
    file = "/etc/incus-stt/open_webui/secrets.env"
    assert inside(project, "stat", "-c", "%a %U", file) == "600 root"


@pytest.mark.seldom
def test_an_address_that_somebody_has_is_said(project: Project) -> None:
    with socket.socket() as somebody:
        somebody.bind(("127.0.0.1", 0))
        somebody.listen()
        wire(project, publish=f"127.0.0.1:{somebody.getsockname()[1]}")
        said = project.fails()
    assert "own (publish), stt:webui.publish, or stop" in " ".join(said.split()), said
    assert request(f"http://127.0.0.1:{PORT}/health").status == 200  # as it was before


@pytest.mark.seldom
def test_a_version_that_does_not_come_up_leaves_users_and_chats(settled: Project) -> None:
    """It changes the database as a new version does, and ends; the old one has its own again."""
    admin = sign_in(settled)
    chat = {"title": "before the upgrade", "messages": []}
    made = admin.call("api/v1/chats/new", body={"chat": chat}).json["id"]
    program = "/srv/webui/open-webui/another-version"
    script = (
        "#!/usr/bin/python3\nimport sqlite3\n"
        "base = sqlite3.connect('/srv/webui/open-webui/data/webui.db')\n"
        "base.execute('drop table chat')\nbase.commit()\nraise SystemExit(3)\n"
    )
    inside(settled, "sh", "-c", 'printf %s "$1" >"$0"; chmod 755 "$0"', program, script)
    module = settled.root / "roles" / "open_webui" / "service.py"
    before = module.read_text()
    command = 'f"{program}/bin/open-webui serve --host {host} --port {port}"'
    assert command in before
    other = before.replace(command, f'"{program}"').replace("version=VERSION", 'version="99"')
    module.write_text(other)
    try:
        said = settled.fails()
    finally:
        module.write_text(before)
    assert "the previous one was restored" in said
    assert admin.call(f"api/v1/chats/{made}").json["title"] == "before the upgrade"
    assert settled.unchanged()


@pytest.mark.seldom
def test_a_backup_has_users_and_chats(settled: Project, tmp_path: Path) -> None:
    """Made while people write; what it brings back is in tests/e2e/test_backup.py."""
    admin, done = sign_in(settled), threading.Event()
    written: list[int] = []

    def write() -> None:
        while not done.is_set():
            chat = {"title": f"chat {len(written)}", "messages": []}
            written.append(admin.call("api/v1/chats/new", body={"chat": chat}).status)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while len(written) < 3:
            time.sleep(0.05)
        file, key = tmp_path / "webui.incus-stt", tmp_path / "key"
        key.write_text("what the operator chose")
        made = settled.make("backup", FILE=str(file), BACKUP_PASSPHRASE_FILE=str(key))
    finally:
        done.set()
        writer.join()
    assert made.returncode == 0, made.stderr
    assert set(written) == {200}  # none was refused
    with tarfile.open(file) as whole:
        content = whole.extractfile(f"volumes/{DOMAIN}/webui.tar.gz")
        assert content
        (tmp_path / "webui.tar.gz").write_bytes(content.read())
    place = "backup/volume/open-webui/data"
    unpacked = run("tar", "-xzf", str(tmp_path / "webui.tar.gz"), "-C", str(tmp_path), place)
    assert unpacked.returncode == 0, unpacked.stderr
    database = tmp_path / place / "webui.db"
    base = sqlite3.connect(database)
    assert base.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert base.execute("SELECT role FROM user").fetchall()[0] == ("admin",)
    titles = [title for (title,) in base.execute("SELECT title FROM chat")]
    assert {"chat 0", "chat 1", "chat 2"} <= set(titles)
    base.close()


@pytest.mark.seldom
def test_what_goes_wrong_is_said(settled: Project, tmp_path: Path) -> None:
    """A message that somebody who is no engineer can act on; nothing hangs, nothing is lost."""
    admin = sign_in(settled)
    no_audio = tmp_path / "notes.wav"
    no_audio.write_text("these are words and no sound")
    answer = admin.transcribe(no_audio)
    assert answer.status in (400, 500)
    assert re.search("audio", answer.json["detail"]), answer.json

    # By the socket alone a request would start it again.
    settled.inside("systemctl", "stop", "stt.socket", "faster-whisper")
    answer = admin.transcribe(RECORDINGS / "hello_world.wav")
    assert (answer.status, "Server Connection Error" in answer.json["detail"]) == (500, True)
    if CHROMIUM:
        with browser("hello_world") as page:
            enter(page, settled)
            page.fill("#chat-input", "written before")
            dictate(page)
            page.get_by_text("Server Connection Error").first.wait_for()
            page.wait_for_timeout(700)  # it slides in
            keep(page, "5-no-service")
            assert page.inner_text("#chat-input").strip() == "written before"
    settled.inside("systemctl", "start", "stt.socket", "faster-whisper")

    incus("stop", "--force", "gpu-server", project=settled.domain)
    began = time.monotonic()
    answer = admin.transcribe(RECORDINGS / "hello_world.wav")
    assert (answer.status, "Server Connection Error" in answer.json["detail"]) == (500, True)
    assert time.monotonic() - began < 120  # the client gives a connection 30 s
    settled.up()

    key_file = "/etc/incus-stt/stt_server/api-key"
    settled.inside("sh", "-c", f"printf other-key-0123 >{key_file}")
    settled.inside("systemctl", "restart", "faster-whisper")
    answer = admin.transcribe(RECORDINGS / "hello_world.wav")
    assert answer.status == 500
    assert "key" in answer.json["detail"].lower()
    assert any(f"{key_file}: (another secret" in line for line in settled.drift())
    settled.up()
    assert admin.text_of("hello_world") == "hello world"


@pytest.mark.seldom
def test_wrong_passwords_of_others_do_not_keep_the_operator_out(project: Project) -> None:
    """Open WebUI itself keeps the account closed for three minutes, until it restarts."""
    account = {"email": project.outputs()["webui_admin_email"], "password": "wrong-password"}
    with httpx.Client(base_url=f"http://127.0.0.1:{PORT}", trust_env=False, timeout=60) as client:
        tries = [client.post("/api/v1/auths/signin", json=account) for _ in range(16)]
    assert tries[-1].status_code == 429
    project.set(keepAlive="1h")
    project.up()  # the STT service restarts, and Open WebUI does not
    assert project.outputs()["webui_check"]["text"] == "one two three"


@pytest.mark.seldom
def test_https_with_a_ca_of_its_own(project: Project) -> None:
    wire(project, tls="internal", names=["webui.test"])
    project.up()
    outputs = project.outputs()
    assert outputs["webui_url"] == f"https://webui.test:{PORT}"
    trust = ssl.create_default_context(cadata=outputs["webui_ca"])
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trust)
    )
    for address in (f"{project.subnet}.2", f"localhost:{PORT}", f"127.0.0.1:{PORT}"):
        with opener.open(f"https://{address}/health", timeout=30) as answer:
            assert answer.status == 200
    with pytest.raises(OSError, match="refused"):  # no password goes in the clear
        request(f"http://{project.subnet}.2:3000/health")
    assert inside(project, "systemctl", "show", "-P", "User", "webui-proxy") == "webui-proxy"
    assert exposure(project, "webui-proxy") <= 1.5
    account = {name: outputs[f"webui_admin_{name}"] for name in ("email", "password")}
    with httpx.Client(
        base_url=f"https://localhost:{PORT}", trust_env=False, verify=trust, timeout=60
    ) as client:
        signed = client.post("/api/v1/auths/signin", json=account)
    assert signed.status_code == 200
    assert "; secure" in signed.headers["set-cookie"].lower()
    assert project.unchanged()

    # The CA outlives the machine, and so does what people wrote.
    incus("delete", "--force", "webui", project=project.domain)
    project.up()
    assert project.outputs()["webui_ca"] == outputs["webui_ca"]
    assert project.outputs()["webui_check"]["text"] == "one two three"
    if CHROMIUM and run("which", "certutil").returncode == 0:
        with browser("four_five_six", outputs["webui_ca"]) as page:
            visit(page, f"https://localhost:{PORT}")
            assert page.evaluate("window.isSecureContext") is True
            assert page.evaluate("navigator.mediaDevices !== undefined") is True


@pytest.mark.seldom
def test_open_webui_and_the_proxy_call_nobody(project: Project) -> None:
    """While they start anew, somebody dictates, and afterwards; as the test before left them."""
    with heard(project, 60) as recorder:
        inside(project, "systemctl", "restart", UNIT, "webui-proxy")
        # By its address, and so over the bridge: what is heard there is not nothing.
        trust = ssl.create_default_context(cadata=project.outputs()["webui_ca"])
        with httpx.Client(
            base_url=f"https://{project.subnet}.2", trust_env=False, verify=trust, timeout=60
        ) as client:
            wait_until(lambda: client.get("/ready").status_code == 200, 180)
            for path in ("/", "/api/config", "/api/version/updates", "/api/models"):
                client.get(path)
        if CHROMIUM:
            with browser("four_five_six", project.outputs()["webui_ca"]) as page:
                enter(page, project)
                dictate(page)
                page.wait_for_function("document.querySelector('#chat-input').innerText.trim()")
    recorder.assert_nobody_was_called()


@pytest.mark.seldom
def test_https_with_a_certificate_of_the_operators(project: Project) -> None:
    files = {"certificate": project.root / "own.pem", "certificateKey": project.root / "own.key"}

    def issue() -> None:
        words = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=own.test")
        names = ("-keyout", str(files["certificateKey"]), "-out", str(files["certificate"]))
        extra = ("-days", "2", "-addext", f"subjectAltName=IP:{project.subnet}.2,DNS:own.test")
        done = run("openssl", *words, *names, *extra)
        assert done.returncode == 0, done.stderr

    def shown() -> str:
        return ssl.get_server_certificate((f"{project.subnet}.2", 443)).strip()

    issue()
    wire(project, tls="files", names=["own.test"], **{k: str(v) for k, v in files.items()})
    project.up()
    first = shown()
    assert first == files["certificate"].read_text().strip()
    key = "/etc/incus-stt/webui_proxy/key.pem"
    assert inside(project, "stat", "-c", "%a %U", key) == "600 webui-proxy"
    issue()  # the other certificate has another key
    project.up()
    assert shown() == files["certificate"].read_text().strip() != first
    assert project.unchanged()
    private = files["certificateKey"].read_text().splitlines()[1]
    states = [path for path in (project.root / "state").rglob("*") if path.is_file()]
    assert not any(private in path.read_text(errors="replace") for path in states)


@pytest.mark.seldom
def test_switched_off_stt_is_said(project: Project) -> None:
    wire(project, stt_url="")
    project.up()
    with pytest.raises(OSError, match="refused"):  # HTTPS is off again
        request(f"http://{project.subnet}.2:443/")
    assert request(f"http://{project.subnet}.2:3000/health").status == 200
    assert not {"text", "proven"} & set(project.outputs()["webui_check"])
    answer = sign_in(project).transcribe(RECORDINGS / "hello_world.wav")
    assert "speech-to-text-is-switched-off" in answer.json["detail"]
    wire(project, stt_url=None)
    project.set(enabled=False)
    project.up()
    answer = sign_in(project).transcribe(RECORDINGS / "hello_world.wav")
    assert "speech-to-text-is-switched-off" in answer.json["detail"]


@pytest.mark.seldom
def test_switched_on_again_it_transcribes(settled: Project) -> None:
    assert settled.outputs()["webui_check"]["text"] == "one two three"
    assert sign_in(settled).text_of("hello_world") == "hello world"
