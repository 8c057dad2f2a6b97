"""Who holds a device's memory in this machine, and how they let go. Arguments: verb, JSON."""

import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

verb, asked = sys.argv[1], json.loads(sys.argv[2])
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def call(url, method="GET", body=None, headers=(), seconds=10):
    """Status and answer; 0 where nobody answers."""
    request = urllib.request.Request(url, method=method, headers=dict(headers))
    request.data = None if body is None else json.dumps(body).encode()
    try:
        with opener.open(request, timeout=seconds) as answer:
            return answer.status, json.loads(answer.read() or "null")
    except urllib.error.HTTPError as error:
        return error.code, None
    except (OSError, ValueError):
        return 0, None


def key():
    """The API key's header, which never leaves this machine."""
    with open(asked["authorization"], encoding="ascii") as file:
        name, _, value = file.read().strip().partition(": ")
    return {name: value}


def stt():
    """What the STT engine has loaded."""
    if not asked["stt"]:
        return None
    status, said = call(f"{asked['stt']}/api/ps", headers=key())
    if status != 200 or not isinstance(said, dict) or "models" not in said:
        return {"answers": status != 0, "models": None}
    return {"answers": True, "models": said["models"]}


def ollama():
    """What Ollama has loaded."""
    if not asked["ollama"]:
        return None
    status, said = call(f"{asked['ollama']}/api/ps")
    if status != 200:
        return {"answers": False, "models": []}
    keys = ("name", "size", "size_vram", "expires_at")
    return {"answers": True, "models": [{k: m.get(k) for k in keys} for m in said["models"]]}


def flush():
    """Both let go; each waits for what it is at."""
    if asked["stt"]:
        loaded = stt()["models"]
        done = {"silent" if not stt()["answers"] else "cannot"} if loaded is None else {"nothing"}
        for name in loaded or ():
            url = f"{asked['stt']}/api/ps/{urllib.parse.quote(name, safe='')}"
            status, _ = call(url, "DELETE", headers=key(), seconds=800)
            done = {"unloaded" if status in (200, 404) else "busy"}
        yield "stt", done.pop()
    if asked["ollama"]:
        loaded = [model["name"] for model in ollama()["models"]]
        for name in loaded:
            body = {"model": name, "keep_alive": 0, "stream": False}
            call(f"{asked['ollama']}/api/generate", "POST", body, seconds=300)
        end = time.monotonic() + 60
        while ollama()["models"] and time.monotonic() < end:
            time.sleep(0.2)
        left = bool(ollama()["models"])
        yield "ollama", "stays" if left else "unloaded" if loaded else "nothing"


found = dict(flush()) if verb == "flush" else {"stt": stt(), "ollama": ollama()}
print(json.dumps(found))
