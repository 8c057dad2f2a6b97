"""What the stack's state says of its own resources, before any is registered.

Pulumi's engine answers ``readStackResourceOutputs`` itself; stack references are made of the same.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import pulumi

#: A text that is known, or that a resource says once it is there.
Text: TypeAlias = "str | pulumi.Output[str]"
#: The Command whose output is the stack's own id.
STACK_ID = "stack/id"
#: The file of a new stack is empty for a moment, when the engine has begun to write it.
_TRIES = 20
_TOKEN = "pulumi:pulumi:readStackResourceOutputs"  # noqa: S105  # a function's name


@dataclass(frozen=True)
class State:
    """The outputs of every resource by its name."""

    resources: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def outputs(self, *names: str) -> Mapping[str, Any] | None:
        """The outputs of a resource under the first of its names that is there."""
        return next((self.resources[name] for name in names if name in self.resources), None)

    @property
    def stack(self) -> str:
        """The stack's own id; empty before the first run."""
        return str((self.outputs(STACK_ID) or {}).get("stdout") or "")


def _ask(arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the engine answers; where it writes the file itself just then, asked again."""
    tries = 1
    while True:
        try:
            return pulumi.runtime.invoke(_TOKEN, arguments).value or {}
        except Exception as error:  # the SDK has no other
            if tries == _TRIES or "failed to load checkpoint" not in str(error):
                raise
        tries += 1
        time.sleep(0.1)


def read_state() -> State:
    """The state as the last run has left it; empty for a stack that has had none."""
    stack = f"{pulumi.get_organization()}/{pulumi.get_project()}/{pulumi.get_stack()}"
    answer = _ask({"stackName": stack})
    resources: dict[str, Mapping[str, Any]] = {}
    for urn, found in (answer.get("outputs") or {}).items():
        outputs = found.get("outputs") if isinstance(found, Mapping) else None
        resources[urn.rsplit("::", 1)[1]] = outputs or {}
    return State(resources)
