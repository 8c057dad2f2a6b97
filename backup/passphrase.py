"""The operator's passphrase, and the seal that it puts on the state's.

Pulumi itself seals: the state's passphrase is the one secret of a stack that lives for a moment in
a directory of its own. The cipher is Pulumi's (AES-256-GCM, with a key by PBKDF2 from the
passphrase), so whoever tampers with a seal is found out, and no other program is needed.
"""

from __future__ import annotations

import getpass
import json
import os
import sys
from pathlib import Path

from backup.cli import PulumiError, scratch
from operations.host import OperationError

#: Names the file with the passphrase, if nobody is there to type it.
VARIABLE = "BACKUP_PASSPHRASE_FILE"
#: Characters that it has at least.
_LEAST = 12
_PROJECT, _STACK, _KEY = "sealed", "sealed", "passphrase"


def ask(*, new: bool) -> str:
    """The operator's passphrase, from a file or from a terminal; a new one is asked for twice.

    Raises:
        OperationError: nobody can be asked, or it is none.
    """
    if path := os.environ.get(VARIABLE):
        try:
            given = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            said = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise OperationError(f"{VARIABLE}: {path} cannot be read: {said}.") from None
        return _checked(given) if new else given
    if not sys.stdin.isatty():
        raise OperationError(
            f"the archive needs a passphrase, and there is no terminal to ask at. Put it into a "
            f"file of mode 600, and name that in {VARIABLE}."
        )
    given = getpass.getpass("Passphrase of the archive: ").strip()
    if not new:
        return given
    _checked(given)
    if getpass.getpass("The same again: ").strip() != given:
        raise OperationError("the two passphrases differ. Nothing was written: try again.")
    return given


def _checked(given: str) -> str:
    if len(given) < _LEAST:
        raise OperationError(
            f"the archive's passphrase has {len(given)} characters, and needs {_LEAST}: it is all "
            "that protects the keys in the archive. Choose a longer one."
        )
    return given


def seal(secret: str, passphrase: str) -> str:
    """The secret, encrypted: a text for ``unseal``.

    Raises:
        OperationError: Pulumi cannot do it.
    """
    with scratch(_PROJECT, _STACK, passphrase) as project:
        project.init()
        project.set(_KEY, json.dumps(secret), secret=True)
        return project.stack_file.read_text(encoding="utf-8")


def unseal(sealed: str, passphrase: str) -> str:
    """The secret in a seal.

    Raises:
        OperationError: the passphrase is another one, or the seal is damaged.
    """
    with scratch(_PROJECT, _STACK, passphrase) as project:
        project.stack_file.write_text(sealed, encoding="utf-8")
        try:
            project.init()
            return str(json.loads(project.get(_KEY)))
        except (PulumiError, ValueError):
            raise OperationError(
                "the passphrase is not the archive's, or the archive is damaged. Nothing was "
                "changed: try again."
            ) from None
