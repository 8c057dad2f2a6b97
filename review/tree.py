"""A commit of the project in a directory of its own, previewed there."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from declaration.stack_file import ENCRYPTED, StackFile, read_stack_file, stack_directory

#: Seconds that a preview may take.
_DEADLINE = 600
#: Environment variable: the program does not read the host (components/start.py).
UNREAD = "STT_HOST_UNREAD"
#: What stands for a secret where it cannot be decrypted.
_PLACEHOLDER = "0123456789abcdef-not-the-secret"


class ReviewError(Exception):
    """There is no preview; the text is for the operator."""


def git(root: Path, *words: str) -> bytes:
    """What git says.

    Raises:
        ReviewError: it failed.
    """
    command = ["git", "--no-optional-locks", *words]
    done = subprocess.run(command, cwd=root, capture_output=True, check=False)  # noqa: S603  # git of the operator's
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise ReviewError(f"git {words[0]}: {said}")
    return done.stdout


def resolve(root: Path, commit: str) -> str:
    """The hash of a commit.

    Raises:
        ReviewError: there is no such commit.
    """
    try:
        found = git(
            root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{commit}^{{commit}}"
        )
    except ReviewError:
        raise ReviewError(
            f"there is no commit {commit!r} here. Name one that was fetched: BASE=…, HEAD=…"
        ) from None
    return found.decode().strip()


@dataclass(frozen=True)
class Tree:
    """A commit, unpacked; ``environment`` is what its previews run with."""

    root: Path
    stack: str
    environment: Mapping[str, str]

    @property
    def file(self) -> Path:
        """The stack's file."""
        return stack_directory(self.root) / f"Pulumi.{self.stack}.yaml"

    def stack_file(self) -> StackFile:
        """What the stack sets in this commit.

        Raises:
            DeclarationError: it cannot be read.
        """
        return read_stack_file(self.root, self.stack)

    def preview(self) -> dict[str, Any]:
        """What ``pulumi preview --json`` says.

        Raises:
            ReviewError: it failed.
        """
        document: dict[str, Any] = json.loads(self._pulumi("preview", "--json"))
        return document

    def diff(self) -> str:
        """Pulumi's own diff."""
        words = ("--diff", "--color", "never", "--suppress-progress", "--suppress-permalink")
        return self._pulumi("preview", *words)

    def initialize(self) -> None:
        """Make the stack in the state, with something in the place of each of its secrets."""
        content = yaml.safe_load(self.file.read_text(encoding="utf-8")) or {}
        secrets = _take_secrets(content.get("config") or {})
        content.pop("encryptionsalt", None)
        self.file.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
        self._pulumi("stack", "init", "--no-select", self.stack, here=())
        for path in secrets:
            self._pulumi("config", "set", "--secret", "--path", path, text=_PLACEHOLDER)

    def _pulumi(self, *words: str, text: str = "", here: Sequence[str] | None = None) -> str:
        stack = ("--stack", self.stack) if here is None else here
        done = subprocess.run(  # noqa: S603  # the words are this program's
            ["pulumi", *words, *stack, "--non-interactive"],  # noqa: S607  # pulumi.sh found it
            cwd=self.root,
            env={**os.environ, **self.environment},
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=_DEADLINE,
        )
        if done.returncode:
            raise ReviewError(_why(done.stdout, done.stderr))
        return done.stdout


def _why(stdout: str, stderr: str) -> str:
    """What went wrong: the errors of a JSON document, else what was said."""
    try:
        said = json.loads(stdout).get("diagnostics") or []
    except ValueError:
        said = []
    errors = [str(each["message"]).strip() for each in said if each.get("severity") == "error"]
    text = "\n".join(errors) or stderr.strip() or stdout.strip()
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def _take_secrets(config: dict[str, Any]) -> list[str]:
    """The paths of the encrypted values, which are taken out."""
    found: list[str] = []
    for key in list(config):
        value = config[key]
        if isinstance(value, dict) and set(value) == {"secure"}:
            del config[key]
            found.append(key)
        elif isinstance(value, dict):
            inner = _take_secrets(value)
            found += [f"{key}.{name}" for name in inner]
    return found


def unpack(root: Path, commit: str, into: Path) -> None:
    """A commit's files; the virtual environment is the one that there is.

    Raises:
        ReviewError: it cannot be had.
    """
    into.mkdir()
    words = ["tar", "--extract", "--no-same-owner", "--directory", str(into)]
    done = subprocess.run(  # noqa: S603  # the words are this program's
        words, input=git(root, "archive", commit), capture_output=True, check=False
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise ReviewError(f"the commit {commit} cannot be unpacked: {said}")
    try:
        (into / ".venv").symlink_to(root / ".venv")
    except FileExistsError:
        raise ReviewError(f"the commit {commit} has a .venv, which no commit may have.") from None


def keep_salt(root: Path, tree: Tree) -> None:
    """Give a stack's file the salt that Pulumi has written into the checkout's, where it lacks one.

    Without it Pulumi would make another one, to which the passphrase does not belong.
    """
    own = stack_directory(root) / tree.file.name
    if not own.exists() or not tree.file.exists():
        return
    salts = re.findall(r"^encryptionsalt: .*$", own.read_text(encoding="utf-8"), re.MULTILINE)
    text = tree.file.read_text(encoding="utf-8")
    if salts and "\nencryptionsalt: " not in f"\n{text}":
        tree.file.write_text(f"{salts[0]}\n{text}", encoding="utf-8")


def setting_values(file: StackFile) -> dict[str, Any]:
    """Every value of a stack's file by its path; a secret is ``ENCRYPTED``."""
    found: dict[str, Any] = {}

    def walk(path: str, value: Any) -> None:
        if isinstance(value, dict) and set(value) == {"secure"}:
            found[path] = ENCRYPTED
        elif isinstance(value, dict) and value:
            for key, each in value.items():
                walk(f"{path}.{key}", each)
        else:
            found[path] = value

    for key, value in file.values.items():
        walk(f"stt:{key}", value)
    return found
