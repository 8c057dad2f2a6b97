"""What is begun before the rest is imported: the read of the host, and Pulumi's provider."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pulumi

from components.config import raw_setting
from components.short_stacks import short_stacks
from components.state import State, read_state
from declaration.connection import UNREAD, parse_connection
from host.client import HostError
from host.reading import Reading

if TYPE_CHECKING:
    from components.command import Command

#: Environment variable: send the debug messages of Pulumi's SDK, for ``pulumi … --debug``. The SDK
#: waits for the engine after each of them, three times a resource.
DEBUG = "STT_DEBUG"


@dataclass(frozen=True)
class Start:
    """What was begun.

    ``reading`` is the read of the host under way; an error of it; None if the settings do not
    say what to read. ``state`` is the state before this run, ``kept_id`` what has the stack's id.
    """

    reading: Reading | HostError | None
    state: State
    kept_id: Command


def start() -> Start:
    """Begin. Only these settings are used, and nothing on the host is changed."""
    reading = _start_reading()
    if not os.environ.get(DEBUG):
        pulumi.log.debug = _ignore
    from components.kept_values import stack_id  # not at the top: the host is read meanwhile

    # The first Command has Pulumi start its provider, which takes a while. The id is no object of
    # the host's, so it may be registered before the settings are checked.
    with short_stacks():
        kept_id = stack_id(protect=raw_setting("protect", "") == "true")
    state = read_state()
    return Start(reading, state, kept_id)


def _start_reading() -> Reading | HostError | None:
    try:
        connection = parse_connection(raw_setting("connection", "local"))
    except ValueError:
        return None  # what is wrong is said once all settings are checked
    if os.environ.get(UNREAD):
        return HostError(f"The host was not read, because {UNREAD} is set.")
    try:
        return Reading(connection, raw_setting("pool", "default"))
    except HostError as error:
        return error


def _ignore(*_: Any, **__: Any) -> None:
    """Say nothing."""
