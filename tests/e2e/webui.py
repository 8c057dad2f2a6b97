"""Open WebUI as its users and administrators meet it: by its API, and in a browser."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import wave
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Error as PlaywrightError
from playwright.sync_api import Page, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError

from tests.e2e.project import RECORDINGS, ROOT, Answer, Project, post_recording, request, run

CHROMIUM = shutil.which("chromium") or ""
#: Silence in the microphone before the words: a busy machine starts to record late.
_SILENCE = 4
#: Screenshots, kept from the last run.
ARTIFACTS = ROOT / "artifacts"
#: Chromium gives up what it loads, and what it sends over HTTP/2, whenever a network interface of
#: the host comes or goes, as those of other tests' machines do.
INTERFACES_CHANGED = "net::ERR_NETWORK_CHANGED"


@dataclass
class Account:
    """Somebody who is signed in."""

    url: str
    token: str

    def call(self, path: str, method: str = "GET", body: Any = None) -> Answer:
        """A request to the API; ``body`` goes as JSON."""
        return request(
            f"{self.url}/{path}",
            self.token,
            method="POST" if body is not None and method == "GET" else method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )

    def transcribe(self, recording: Path) -> Answer:
        """A recording to Open WebUI's own route."""
        return post_recording(f"{self.url}/api/v1", recording, "", self.token)

    def text_of(self, recording: str) -> str:
        """The transcription of one of the recordings."""
        answer = self.transcribe(RECORDINGS / f"{recording}.wav")
        assert answer.status == 200, answer.body
        return str(answer.json["text"])


def sign_in(project: Project, email: str = "", password: str = "") -> Account:
    """Sign in, by default as the administrator of the outputs."""
    outputs = project.outputs()
    account = {
        "email": email or outputs["webui_admin_email"],
        "password": password or outputs["webui_admin_password"],
    }
    url = f"http://127.0.0.1:{project.settings['webui']['publish'].rpartition(':')[2]}"
    answer = Account(url, "").call("api/v1/auths/signin", body=account)
    assert answer.status == 200, answer.body
    return Account(url, answer.json["token"])


@contextmanager
def browser(recording: str, certificate: str = "") -> Iterator[Page]:
    """A page of a Chromium whose microphone is a recording; it trusts a CA where one is given."""
    with tempfile.TemporaryDirectory() as home:
        microphone = Path(home, "microphone.wav")
        with wave.open(str(RECORDINGS / f"{recording}.wav")) as words:
            told, frames = words.getparams(), words.readframes(words.getnframes())
        with wave.open(str(microphone), "wb") as sound:
            sound.setparams(told)
            sound.writeframes(bytes(_SILENCE * told.framerate * told.sampwidth) + frames)
        if certificate:
            store = Path(home, ".pki", "nssdb")
            store.mkdir(parents=True)
            (store / "ca.crt").write_text(certificate)
            for order in (["-N", "--empty-password"], ["-A", "-t", "C,,", "-n", "incus-stt", "-i"]):
                file = [str(store / "ca.crt")] if "-i" in order else []
                done = run("certutil", "-d", f"sql:{store}", *order, *file)
                assert done.returncode == 0, done.stderr
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(
                executable_path=CHROMIUM,
                env={**os.environ, "HOME": home},
                args=[
                    "--no-sandbox",  # the tests may run as root
                    "--no-proxy-server",
                    "--host-resolver-rules=MAP webui.test 127.0.0.1",
                    "--use-fake-device-for-media-stream",
                    "--use-fake-ui-for-media-stream",  # the person who says yes to the microphone
                    f"--use-file-for-fake-audio-capture={microphone}%noloop",
                ],
            )
            page = chromium.new_page(viewport={"width": 1200, "height": 700})
            page.set_default_timeout(60_000)
            try:
                yield page
            finally:
                chromium.close()


def keep(page: Page, name: str) -> None:
    """A screenshot for whoever looks at the run."""
    ARTIFACTS.mkdir(exist_ok=True)
    page.screenshot(path=ARTIFACTS / f"{name}.png")


def visit(page: Page, url: str) -> None:
    """Open a page; its certificate must be trusted."""
    for _ in range(10):
        try:
            page.goto(url)
            return
        except PlaywrightError as error:
            if INTERFACES_CHANGED not in error.message:
                raise
    raise AssertionError(f"{url}: Chromium gave up ten tries: {INTERFACES_CHANGED}")


def enter(page: Page, project: Project) -> None:
    """Sign in on the published page, where nobody is yet, and wait for the microphone button."""
    outputs = project.outputs()
    # What is new in this version, told to everybody once.
    news = page.get_by_role("button", name="Okay, Let's Go!")
    page.add_locator_handler(news, lambda button: button.click())
    for _ in range(4):
        visit(page, outputs["webui_url"])
        # A page without one of its scripts (INTERFACES_CHANGED) stays empty.
        with suppress(PlaywrightTimeoutError):
            page.wait_for_selector("#email, #voice-input-button", timeout=20_000)
            if page.is_visible("#email"):
                page.fill("#email", outputs["webui_admin_email"])
                page.fill("input[type=password]", outputs["webui_admin_password"])
                keep(page, "1-sign-in")
                page.keyboard.press("Enter")
            page.wait_for_selector("#voice-input-button", timeout=30_000)
            return
    raise AssertionError(f"{outputs['webui_url']} has shown no microphone button in four tries")


def dictate(page: Page) -> None:
    """Press the microphone button, let the words play, confirm, and wait for an answer."""
    for _ in range(10):
        page.click("#voice-input-button")
        page.wait_for_timeout((_SILENCE + 4) * 1000)
        keep(page, "2-listening")
        with page.expect_request("**/audio/transcriptions") as sent:
            page.click("#confirm-recording-button")
        if sent.value.response() or sent.value.failure != INTERFACES_CHANGED:
            return
    raise AssertionError(f"{page.url}: Chromium gave up ten dictations: {INTERFACES_CHANGED}")
