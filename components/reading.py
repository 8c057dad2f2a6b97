"""The read of the host, which starts before anything else is imported or checked."""

from __future__ import annotations

from components.config import raw_setting
from declaration.connection import parse_connection
from host.client import HostError
from host.read import Reading


def start_reading() -> Reading | HostError | None:
    """The read under way; an error of it; None where the settings do not say what to read."""
    try:
        connection = parse_connection(raw_setting("connection", "local"))
    except ValueError:
        return None  # what is wrong is said once all settings are checked
    try:
        return Reading(connection, raw_setting("pool", "default"))
    except HostError as error:
        return error
