"""A Command, as Pulumi's engine sees it."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any

import pulumi
from google.protobuf import json_format
from pulumi.runtime import stack as pulumi_stack
from pulumi_command import local

from components.command import LOCAL, Command, Host
from components.state import State
from declaration.connection import Connection
from tests.unit.program import Recorder


def registered(make: Callable[[], None]) -> dict[str, Any]:
    """What is registered of the Command that ``make`` makes, but for where it is made."""
    recorder = Recorder({})

    async def body() -> None:
        nobody: Any = None
        pulumi.runtime.set_mocks(nobody, "stt", "x", False, nobody, recorder)
        await pulumi_stack.run_pulumi_func(make)

    contextvars.copy_context().run(lambda: asyncio.run(body()))
    [found] = [each.request for each in recorder.registered.values() if each.request.custom]
    fields: dict[str, Any] = json_format.MessageToDict(found)
    return {
        key: value for key, value in fields.items() if key not in ("sourcePosition", "stackTrace")
    }


def test_it_is_registered_as_the_library_would() -> None:
    """Another version, or another list of what replaces it, would make every command again."""

    def ours() -> None:
        Command(
            "a/b",
            Host(Connection("local"), None, State()),
            create="true",
            delete="false",
            stdin=pulumi.Output.secret("in"),
            identity=["one", pulumi.Output.from_input("two")],
            after={"AFTER": "x"},
            here=True,
            quiet=True,
            secret_output=True,
            opts=pulumi.ResourceOptions(protect=True, ignore_changes=["create"]),
        )

    def theirs() -> None:
        local.Command(
            "a/b",
            create="true",
            delete="false",
            stdin=pulumi.Output.secret("in"),
            triggers=[str(Connection("local")), "one", pulumi.Output.from_input("two")],
            interpreter=LOCAL,
            environment={"AFTER": "x"},
            logging=local.Logging.NONE,
            add_previous_output_in_env=False,
            opts=pulumi.ResourceOptions(
                protect=True,
                ignore_changes=["create"],
                delete_before_replace=True,
                additional_secret_outputs=["stdout", "stderr"],
            ),
        )

    found = registered(ours)
    assert found == registered(theirs)
    assert found["version"] and found["replaceOnChanges"] == ["triggers[*]"]
