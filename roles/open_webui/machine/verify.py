"""Whether Open WebUI transcribes: sign in, and post a recording to its own transcription route.

``verify.py URL [RECORDING]`` prints one line of JSON; without a recording it only signs in. The
environment has the words of the recording (``STT_WORDS``; empty: any words will do) and the word
error rate that is allowed (``STT_ERROR_RATE``). It runs with Open WebUI's Python, which has httpx,
and compares words as the agent does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx

# The agent's one file is beside this program's directory, and Python imports from it.
sys.path.append(str(Path(__file__).parents[1] / "agent"))

from agent.words import compared

#: Seconds that an answer may take: the first one loads the model.
TIMEOUT = 300


#: What Open WebUI answers where the password is another, and where somebody has tried too often.
REFUSED = (400, 401, 403, 429)


def sign_in(client: httpx.Client) -> str:
    """A token that works: by password, or made here where that is refused.

    A person may have changed the password. And Open WebUI counts the tries for an account, not who
    makes them: anybody who tries 15 wrong ones keeps everybody out for three minutes.
    """
    account = {name: os.environ[f"WEBUI_ADMIN_{name.upper()}"] for name in ("email", "password")}
    answer = client.post("/api/v1/auths/signin", json=account)
    if answer.status_code not in REFUSED:
        return str(answer.raise_for_status().json()["token"])
    accounts = [sys.executable, str(Path(__file__).with_name("accounts.py")), "token"]
    done = subprocess.run(accounts, capture_output=True, text=True, timeout=TIMEOUT, check=True)  # noqa: S603
    token = done.stdout.splitlines()[-1]
    client.get("/api/v1/auths/", headers={"Authorization": f"Bearer {token}"}).raise_for_status()
    return token


def transcribe(client: httpx.Client, token: str, recording: Path) -> str:
    """The text of a recording, as Open WebUI has it."""
    answer = client.post(
        "/api/v1/audio/transcriptions",
        headers={"Authorization": f"Bearer {token}"},
        files={"file": ("recording.wav", recording.read_bytes(), "audio/wav")},
    )
    return str(answer.raise_for_status().json()["text"]).strip()


def verify(url: str, recording: str) -> dict[str, Any]:
    """What was found.

    Raises:
        SystemExit: the transcript is empty, or too many of its words are wrong.
    """
    # No proxy of the environment stands between this machine and its own service.
    with httpx.Client(base_url=url, timeout=TIMEOUT, trust_env=False) as client:
        token = sign_in(client)
        found: dict[str, Any] = {"signed_in": True}
        if recording:
            began = time.monotonic()
            text = transcribe(client, token, Path(recording))
            if not text:
                sys.exit("Open WebUI transcribed a recording of spoken words as nothing.")
            took = round(time.monotonic() - began, 3)
            found |= {"text": text, **_proof(text), "seconds": took}
    return found


def _proof(text: str) -> dict[str, Any]:
    """Whether its words are proven, and their word error rate."""
    try:
        return compared(os.environ["STT_WORDS"], text, float(os.environ["STT_ERROR_RATE"]))
    except ValueError as error:
        sys.exit(
            f"Open WebUI's STT service {error} Is it the right service (stt:webui.stt_url), and "
            "the right language (stt:language)? Another recording, or another expectation, is "
            "stt:check."
        )


def main(url: str, recording: str = "") -> None:
    """Verify, and print what was found.

    Raises:
        SystemExit: Open WebUI does not answer, or answers with an error.
    """
    try:
        print(json.dumps(verify(url, recording)))
    except httpx.HTTPStatusError as error:
        said = error.response.text[:600]
        sys.exit(f"Open WebUI answered with HTTP status {error.response.status_code}: {said}")
    except (httpx.HTTPError, OSError) as error:
        sys.exit(f"Open WebUI does not answer: {error}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"The administrator's account cannot be used: {error.stderr[-600:]}")
    except subprocess.TimeoutExpired:
        sys.exit(f"Open WebUI's own program gave no token within {TIMEOUT} s. Is its disk full?")


if __name__ == "__main__":
    main(*sys.argv[1:])
