"""What the runner made: one JSON file a stack, replaced as a whole after every operation."""

import fcntl
import hashlib
import json
import os
from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet, InvalidToken

#: Pulumi's mark of a secret on the wire; in the file the value under it is encrypted.
MARK, SECRET = "4dabf18193072939515e22adb298388d", "1b47061264138c4ac30d75fd1eb44270"


class RunnerError(Exception):
    """The runner cannot go on; the text says why and what to do."""


def secret(value: Any) -> dict[str, Any]:
    """A value, marked as a secret."""
    return {MARK: SECRET, "value": value}


def walk(value: Any, change: Callable[[Any], Any]) -> Any:
    """A copy of a value in which ``change`` replaced what every secret holds, and its mark."""
    if isinstance(value, dict):
        if value.get(MARK) == SECRET:
            return change(value["value"])
        return {key: walk(item, change) for key, item in value.items()}
    return [walk(item, change) for item in value] if isinstance(value, list) else value


def plain(value: Any) -> Any:
    """A value with its secrets in the clear."""
    return walk(value, plain)


def masked(value: Any) -> Any:
    """A value for human eyes."""
    return walk(value, lambda _: "[secret]")


class State:
    """Resources by URN, in the order of their creation, and the stack's outputs; for one run."""

    def __init__(self, file: Path, passphrase: str) -> None:
        self.file = file
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = file.with_suffix(".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunnerError(f"another run works on {file}; wait for its end") from None
        data = json.loads(file.read_text("utf-8")) if file.exists() else {}
        self._salt: str = data.get("salt") or os.urandom(16).hex()
        key = hashlib.scrypt(passphrase.encode(), salt=self._salt.encode(), n=2**14, r=8, p=1)
        self._fernet = Fernet(urlsafe_b64encode(key[:32]))
        self.resources: dict[str, dict[str, Any]] = walk(data.get("resources", {}), self._open)
        self.outputs: dict[str, Any] = walk(data.get("outputs", {}), self._open)

    def rename(self, old: str, new: str) -> None:
        """Give a resource its new URN, in what refers to it as well."""
        if new not in self.resources:
            text = json.dumps(self.resources).replace(json.dumps(old), json.dumps(new))
            self.resources = json.loads(text)

    def _open(self, sealed: str) -> Any:
        try:
            return secret(json.loads(self._fernet.decrypt(sealed)))
        except InvalidToken:
            raise RunnerError(f"the passphrase does not open the secrets of {self.file}") from None

    def _close(self, value: Any) -> Any:
        return secret(self._fernet.encrypt(json.dumps(plain(value)).encode()).decode())

    def save(self) -> None:
        """Write beside, then rename: a kill at any byte leaves the old file or the new one."""
        content = {"resources": self.resources, "outputs": self.outputs}
        beside = self.file.with_suffix(".new")
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
            json.dump({"salt": self._salt, **walk(content, self._close)}, stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(self.file)
