"""Who may use an STT service: its keys, and how they are said to clients."""

from __future__ import annotations

import json
import shlex
from typing import Any

from agent.kinds.secret_files import SecretFile, SecretFiles
from declaration.secret import secret
from declaration.settings import Settings
from engines import MODEL_ALIAS
from engines.service import AUTHORIZATION, CLIENT_KEYS, KEY, KEY_ENVIRONMENT, USER
from roles.role import Context
from roles.stt_server.verification import recording_file

#: The secret that clients have to send.
API_KEY = "stt_server/key"
#: The secret of each client that has a key of its own (``stt:clients``), before its name.
CLIENT_KEY = "stt_server/client/"


def api_key(settings: Settings) -> dict[str, str]:
    """The stack's own key, by its name; none if none is asked for."""
    return {API_KEY: settings.apiKey} if settings.asks_key else {}


def client_keys(settings: Settings) -> dict[str, str]:
    """The name of the secret of each client that has a key of its own, by the client's name."""
    return {name: f"{CLIENT_KEY}{name}" for name in settings.clients if settings.asks_key}


def keys(settings: Settings) -> dict[str, str]:
    """The secrets that clients may send, by their names: the stack's key, and their own."""
    return api_key(settings) | dict.fromkeys(client_keys(settings).values(), "")


def secret_files(service: str) -> SecretFiles:
    """The key as the server, curl and systemd read it."""
    key = secret(API_KEY)
    return SecretFiles(
        [
            SecretFile(KEY, key, owner=f"{USER}:{USER}"),
            authorization(AUTHORIZATION),
            SecretFile(KEY_ENVIRONMENT, f"API_KEY={key}\n"),
        ],
        service,
    )


def authorization(path: str, owner: str = "root:root") -> SecretFile:
    """The stack's own key as a header for curl."""
    return SecretFile(path, f"Authorization: Bearer {secret(API_KEY)}\n", owner=owner)


def client_keys_file(settings: Settings) -> SecretFiles:
    """The clients' keys as the server reads them, again whenever they change."""
    keys = {name: secret(key) for name, key in client_keys(settings).items()}
    text = json.dumps(keys, indent=2) + "\n"
    return SecretFiles([SecretFile(CLIENT_KEYS, text, owner=f"{USER}:{USER}")])


def client_outputs(context: Context, url: str, model: str, trusted: str = "") -> dict[str, Any]:
    """What a client of the service at ``url`` has to know, which serves ``model``.

    ``trusted``: the output with the certificate that a client has to trust, if any.
    """
    settings = context.settings
    clients = {name: secret(key) for name, key in client_keys(settings).items()}
    return {
        "stt_url": url,
        "stt_health_url": url.removesuffix("/v1") + "/health",
        "stt_authentication": settings.authentication,
        **({"stt_api_key": secret(API_KEY)} if settings.asks_key else {}),
        **({"stt_client_keys": clients} if clients else {}),
        "stt_curl": curl_line(context, url, model, trusted),
    }


def curl_line(context: Context, url: str, model: str, trusted: str = "") -> str:
    """A line to try the service with; the key comes from the environment.

    It goes to curl by stdin: everybody on the computer sees a program's arguments. Pulumi shows
    150 characters of an output, so the line has no spaces and no scheme that it can do without;
    `make up` prints a longer one whole (``bootstrap/pulumi.sh``).
    What has to be trusted is in a file with the name of its output.
    """
    recording = shlex.quote(recording_file(context))
    own = context.declaration.engine.self_contained  # it may not know the alias
    asked = f"--form-string model={shlex.quote(model)}" if own else f"-F model={MODEL_ALIAS}"
    key = 'echo "Authorization: Bearer $STT_API_KEY"|' if context.settings.asks_key else ""
    curl = "curl -H@-" if key else "curl"
    curl += f" --cacert {trusted}.crt" if trusted else ""
    place = f"{url.removeprefix('http://')}/audio/transcriptions"
    return f"{key}{curl} -F file=@{recording} {asked} {place}"
