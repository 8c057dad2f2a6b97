"""A commit of the project in a directory of its own, previewed there."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from declaration.stack_file import ENCRYPTED, StackFile, read_stack_file, stack_directory
from declaration.yaml_values import parse

#: Seconds that a preview may take.
_DEADLINE = 600
#: Seconds that git may take: it may have to write a whole tree.
_GIT_DEADLINE = 300
#: What stands for a secret where it cannot be decrypted.
_PLACEHOLDER = "0123456789abcdef-not-the-secret"


class ReviewError(Exception):
    """There is no preview; the text is for the operator."""


def git(root: Path, *words: str, index: Path | None = None) -> bytes:
    """What git says; with an ``index`` of its own, if it needs one.

    Raises:
        ReviewError: it failed, or hung.
    """
    command = ["git", "--no-optional-locks", *words]
    environment = {**os.environ, **({"GIT_INDEX_FILE": str(index)} if index else {})}
    try:
        done = subprocess.run(  # noqa: S603  # git of the operator's
            command,
            cwd=root,
            env=environment,
            capture_output=True,
            timeout=_GIT_DEADLINE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ReviewError(
            f"git {words[0]} did not end within {_GIT_DEADLINE} s. See what it waits for (a disk "
            "of a network, a lock), then run this again."
        ) from None
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
    """A commit, unpacked.

    ``environment`` is what its previews run with; ``wrap`` makes of a command the one that runs.
    """

    root: Path
    stack: str
    environment: Mapping[str, str]
    wrap: Callable[[list[str]], list[str]] = list

    @property
    def file(self) -> Path:
        """The stack's file.

        Raises:
            ReviewError: it is somewhere else than in the commit.
        """
        found = stack_directory(self.root) / f"Pulumi.{self.stack}.yaml"
        if found.is_symlink() or not found.resolve().is_relative_to(self.root.resolve()):
            raise ReviewError(f"{found.name} is not a file of the commit's own.")
        return found

    def stack_file(self) -> StackFile:
        """What the stack sets in this commit.

        Raises:
            DeclarationError: it cannot be read.
        """
        return read_stack_file(self.root, self.stack)

    def preview(self) -> dict[str, Any]:
        """What ``pulumi preview --json`` says, also of what stays as it is.

        Raises:
            ReviewError: it failed.
        """
        said = self._pulumi("preview", "--json", "--show-sames", "--stack", self.stack)
        document: dict[str, Any] = json.loads(said)
        return document

    def diff(self) -> str:
        """Pulumi's own diff."""
        words = ("--diff", "--color", "never", "--suppress-progress", "--stack", self.stack)
        return self._pulumi("preview", *words)

    def initialize(self) -> None:
        """Make the stack in the state, with something in the place of each of its secrets.

        Raises:
            ReviewError: it cannot be made.
            YamlError: its file is no YAML.
        """
        content = parse(self.file.read_bytes())
        content = content if isinstance(content, dict) else {}
        config = content.get("config")
        secrets = _take_secrets(config) if isinstance(config, dict) else []
        content.pop("encryptionsalt", None)
        # JSON is YAML, and every reader takes its values for the same.
        self.file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        self._pulumi("stack", "init", "--no-select", "--", self.stack)
        for path in secrets:
            words = ("config", "set", "--secret", "--path", "--stack", self.stack, "--", path)
            self._pulumi(*words, text=_PLACEHOLDER)

    def _pulumi(self, *words: str, text: str = "") -> str:
        with subprocess.Popen(  # noqa: S603  # the words are this program's
            self.wrap(["pulumi", "--non-interactive", *words]),  # pulumi.sh found it
            cwd=self.root,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                stdout, stderr = process.communicate(text, _DEADLINE)
            except BaseException as error:
                os.killpg(process.pid, signal.SIGKILL)
                if isinstance(error, subprocess.TimeoutExpired):
                    raise ReviewError(f"no preview within {_DEADLINE} s") from None
                raise
        if process.returncode:
            raise ReviewError(_why(stdout, stderr))
        return stdout


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
    """The paths of the encrypted values, which are taken out. No setting has one within a list."""
    found: list[str] = []
    for key in list(config):
        value = config[key]
        if isinstance(value, dict) and set(value) == {"secure"}:
            del config[key]
            found.append(key)
        elif isinstance(value, dict):
            found += [f"{key}.{name}" for name in _take_secrets(value)]
    return found


def unpack(root: Path, commit: str, into: Path) -> None:
    """A commit's files, as a checkout has them; the virtual environment is the one that there is.

    Raises:
        ReviewError: it cannot be had.
    """
    into.mkdir()
    index = into.with_name(f"{into.name}-index")
    git(root, "read-tree", commit, index=index)
    git(root, "checkout-index", "--all", f"--prefix={into}/", index=index)
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


def same_packages(root: Path, tree: Tree) -> bool:
    """Whether a commit asks for the packages that the checkout's virtual environment has."""
    files = [each / "requirements.txt" for each in (tree.root, root)]
    texts = [file.read_bytes() if file.is_file() else b"" for file in files]
    return texts[0] == texts[1]


def merge_base(root: Path, base: str, head: str) -> str:
    """Where the two part: what was done on the base's branch since then is not the head's."""
    try:
        return git(root, "merge-base", base, head).decode().strip()
    except ReviewError:  # they have nothing in common, or history was not fetched
        return base


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
