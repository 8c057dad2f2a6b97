"""The proof that Open WebUI hears: signs in and posts a recording to its own transcription route.

``verify.py URL [RECORDING]`` prints one line of JSON; without a recording it signs in alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import Any

#: Seconds that an answer may take: the first one loads the model.
TIMEOUT = 300


def post(url: str, body: bytes, headers: dict[str, str]) -> Any:
    """The answer of a POST, from JSON.

    Raises:
        urllib.error.HTTPError: it is an error.
    """
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, body, headers)  # noqa: S310  # our own service
    with opener.open(request, timeout=TIMEOUT) as answer:
        return json.load(answer)


def sign_in(url: str) -> str:
    """A token: by password, or by a token made here where a person has changed the password."""
    account = {name: os.environ[f"WEBUI_ADMIN_{name.upper()}"] for name in ("email", "password")}
    kind = {"Content-Type": "application/json"}
    try:
        answer = post(f"{url}/api/v1/auths/signin", json.dumps(account).encode(), kind)
        return str(answer["token"])
    except urllib.error.HTTPError as error:
        if error.code not in (400, 401, 403):
            raise
    accounts = [sys.executable, str(Path(__file__).with_name("accounts.py")), "token"]
    said = subprocess.run(accounts, capture_output=True, text=True, check=True).stdout  # noqa: S603
    return said.splitlines()[-1]


def transcribe(url: str, token: str, recording: Path) -> str:
    """What Open WebUI hears in a recording."""
    boundary = uuid.uuid4().hex
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="recording.wav"'
        "\r\nContent-Type: audio/wav\r\n\r\n"
    )
    body = head.encode() + recording.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
    headers = {
        "Authorization": f"Bearer {token}",
        "Content-Type": f"multipart/form-data; boundary={boundary}",
    }
    answer = post(f"{url}/api/v1/audio/transcriptions", body, headers)
    return str(answer["text"]).strip()


def main(url: str, recording: str = "") -> None:
    """Verify, and print what was found."""
    try:
        token = sign_in(url)
        began = time.monotonic()
        found: dict[str, Any] = {"signed_in": True}
        if recording:
            text = transcribe(url, token, Path(recording))
            if not text:
                sys.exit("Open WebUI heard nothing in a recording of spoken words.")
            found |= {"text": text, "seconds": round(time.monotonic() - began, 3)}
    except urllib.error.HTTPError as error:
        said = error.read(600).decode(errors="replace")
        sys.exit(f"Open WebUI answered with HTTP status {error.code}: {said}")
    except OSError as error:
        sys.exit(f"Open WebUI does not answer: {error}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"The administrator's account cannot be used: {error.stderr[-600:]}")
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
