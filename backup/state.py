"""A stack's state: all of it for an archive, and of that what another host can use."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import operations.state
from backup.cli import PulumiError, pulumi
from declaration.secret import KEPT
from operations.host import OperationError

_STACK = "pulumi:pulumi:Stack"
_PROVIDER = "pulumi:providers:"
#: Where Pulumi finds the state's passphrase, and the file that `make` makes for it.
_GIVEN, _NAMED = "PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"


def export(stack: str) -> dict[str, Any]:
    """The state of a stack; its secrets stay encrypted.

    Raises:
        OperationError: there is none, nothing was built, or its secrets have no passphrase.
    """
    try:
        found: dict[str, Any] = json.loads(pulumi("stack", "export", "--stack", stack))
    except PulumiError as error:
        raise OperationError(f"{error}. Is STACK={stack} the right one?") from None
    if not stack_id(found):
        raise OperationError(f"stack {stack} has no state to save: `make up` has built nothing.")
    kind = (found["deployment"].get("secrets_providers") or {}).get("type")
    if kind != "passphrase":
        raise OperationError(
            f"the secrets of stack {stack} are kept by {kind}, and only a passphrase can be put "
            "into an archive. See `pulumi stack change-secrets-provider passphrase`."
        )
    return found


def resources(state: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The resources of a state."""
    return (state.get("deployment") or {}).get("resources") or []


def stack_id(state: Mapping[str, Any]) -> str:
    """The id that the stack made for itself; empty before its first `up`, and after `destroy`."""
    return operations.state.stack_id(resources(state))


def kept(state: Mapping[str, Any], stack: str, former: str) -> dict[str, Any]:
    """What in a state belongs to no host: the stack's id, and the secrets that it made once.

    The rest is about objects of the host that the archive came from: a state with them would
    delete these from another connection. `up` makes or takes over what there is, and records it.
    ``former`` is the stack's name in the archive.
    """
    found: list[dict[str, Any]] = []
    for each in resources(state):
        kind, triggers = str(each.get("type")), (each.get("inputs") or {}).get("triggers") or []
        if kind == _STACK:
            found.append({**each, "outputs": {}})
        elif kind.startswith(_PROVIDER) or (len(triggers) == 2 and triggers[1] in KEPT):
            found.append(each)
    text = json.dumps(found).replace(f"urn:pulumi:{former}::", f"urn:pulumi:{stack}::")
    text = text.replace(f'::{_STACK}::stt-{former}"', f'::{_STACK}::stt-{stack}"')
    deployment = {
        key: value
        for key, value in state["deployment"].items()
        if key not in ("resources", "pending_operations")
    }
    return {**state, "deployment": {**deployment, "resources": json.loads(text)}}


def _there(stack: str) -> dict[str, Any] | None:
    """The state of a stack here; None if there is no such stack.

    Raises:
        PulumiError: it is not known whether there is one.
    """
    try:
        found: dict[str, Any] = json.loads(pulumi("stack", "export", "--stack", stack))
    except PulumiError as error:
        if "no stack named" not in str(error):
            raise
        return None
    return found


def is_there(state: Mapping[str, Any], stack: str) -> bool:
    """Whether the stack of an archive's state is here already, and has been built.

    Raises:
        OperationError: there is another stack of this name.
    """
    found, wanted = stack_id(_there(stack) or {}), stack_id(state)
    if found not in ("", wanted):
        raise OperationError(
            f"there is another stack {stack} already, which `make up` has built (its id: {found}; "
            f"the archive's: {wanted}). Give the restored one another name with STACK=NAME, or "
            f"remove that one first: make destroy STACK={stack}."
        )
    return bool(found)


def import_kept(state: Mapping[str, Any], stack: str, former: str) -> None:
    """Give a stack that has not been built the id and the secrets of an archive's.

    Raises:
        OperationError: Pulumi refuses.
    """
    if _there(stack) is None:
        pulumi("stack", "init", "--no-select", stack)
    text = json.dumps(kept(state, stack, former))
    pulumi("stack", "import", "--stack", stack, stdin=text)


def current_passphrase() -> str:
    """The passphrase of the states here, as Pulumi finds it.

    Raises:
        OperationError: there is none.
    """
    if (given := os.environ.get(_GIVEN)) is not None:
        return given
    path = os.environ.get(_NAMED, "")
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise OperationError(
            f"the state's passphrase cannot be read: {path or _NAMED}: {error.strerror}."
        ) from None


def place_passphrase(root: Path, passphrase: str) -> None:
    """Make the archive's passphrase that of the states here.

    Raises:
        OperationError: they have another one.
    """
    file = root / "state" / "passphrase"
    if _GIVEN not in os.environ and not os.environ.get(_NAMED):
        os.environ[_NAMED] = str(file)
        if not file.exists() or not file.read_text(encoding="utf-8").strip():
            file.parent.mkdir(exist_ok=True)
            file.touch(0o600)
            file.chmod(0o600)
            file.write_text(f"{passphrase}\n", encoding="utf-8")
            return
    if current_passphrase() != passphrase:
        where = _GIVEN if _GIVEN in os.environ else os.environ[_NAMED]
        raise OperationError(
            f"the stacks here have another passphrase ({where}) than the archive's, and a checkout "
            "has only one. Restore into a checkout of its own: git clone, then make restore there. "
            "Nothing was changed."
        )
