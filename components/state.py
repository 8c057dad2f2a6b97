"""What the stack's state says of its own resources, before any is registered.

Pulumi's engine answers ``readStackResourceOutputs`` itself; stack references are made of the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pulumi

#: The Command whose output is the stack's own id.
STACK_ID = "stack/id"
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


def read_state() -> State:
    """The state as the last run has left it; empty for a stack that has had none."""
    stack = f"{pulumi.get_organization()}/{pulumi.get_project()}/{pulumi.get_stack()}"
    answer = pulumi.runtime.invoke(_TOKEN, {"stackName": stack}).value or {}
    resources: dict[str, Mapping[str, Any]] = {}
    for urn, found in (answer.get("outputs") or {}).items():
        outputs = found.get("outputs") if isinstance(found, Mapping) else None
        resources[urn.rsplit("::", 1)[1]] = outputs or {}
    return State(resources)
