"""What this checkout's state says of a stack, read from the disk: without Pulumi's CLI."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from operations.stack import ROOT

#: Where a backend that is a directory keeps the states of the project.
_STATE = "state/.pulumi/stacks/stt"
#: The name of the resource whose output is the stack's own id.
_ID = "stack/id"


def saved_resources(stack: str) -> list[dict[str, Any]]:
    """The resources of a stack; none if this checkout has no state, or keeps it elsewhere."""
    if not os.environ.get("PULUMI_BACKEND_URL", "file://./state").endswith("/state"):
        return []
    try:
        text = (ROOT / _STATE / f"{stack}.json").read_text(encoding="utf-8")
        found: list[dict[str, Any]] = json.loads(text)["checkpoint"]["latest"]["resources"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return found or []


def name_of(resource: Mapping[str, Any]) -> str:
    """A resource's name."""
    return str(resource.get("urn", "")).rpartition("::")[2]


def stack_id(resources: Sequence[Mapping[str, Any]]) -> str:
    """The id that the stack made for itself; empty before its first `up`, and after `destroy`."""
    ids = [each for each in resources if name_of(each) == _ID]
    return str((ids[0].get("outputs") or {}).get("stdout") or "") if ids else ""


def known_id(stack: str) -> str:
    """The id of a stack that this checkout has built; empty if it has no state of it."""
    return stack_id(saved_resources(stack))
