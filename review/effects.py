"""What a change does to those who use the services, in words; ``docs/changes.md`` has the proof."""

from __future__ import annotations

from enum import IntEnum

from engines import ENGINES
from review.changes import Change, Field, Op


class Weight(IntEnum):
    """How much a change asks of those who use the services."""

    NOTHING = 0
    IN_PLACE = 1
    RESTART = 2
    REPLACEMENT = 3
    LOSS = 4


#: The services by their role: what clients notice of a restart.
_RESTARTS = {
    "ollama_server": "Ollama restarts: answers that it is writing are cut off",
    "open_webui": "Open WebUI restarts: its page is away for about ten seconds",
    "webui_proxy": "the HTTPS proxy restarts: its connections are cut off",
}
#: What an Incus object, or a value that is made once, is called.
_OBJECTS = {
    "instance": "the machine",
    "network": "the bridge",
    "project": "the Incus project",
    "profile": "the profile",
    "volume": "the volume",
}
_KEPT_VALUES = {
    "stt_server/key": "clients need the new key",
    "open_webui/session-key": "everybody signs in to Open WebUI again",
    "open_webui/admin-password": "Open WebUI's administrator gets another password",
}


def effect(change: Change, engine: str) -> tuple[Weight, str]:
    """How much, and what, in words; ``engine`` is the one that the stack is to have."""
    if change.name in _KEPT_VALUES:
        return _of_value(change)
    if change.kind in _OBJECTS:
        return _of_object(change, _OBJECTS[change.kind])
    return _of_step(change, engine)


def _of_value(change: Change) -> tuple[Weight, str]:
    if change.op is Op.CREATE:
        return Weight.IN_PLACE, "is made, once"
    if change.op is Op.DELETE:
        return Weight.RESTART, "is forgotten"
    return Weight.RESTART, _KEPT_VALUES[change.name]


def _of_object(change: Change, what: str) -> tuple[Weight, str]:
    machine = change.kind == "instance"
    match change.op:
        case Op.CREATE:
            return Weight.IN_PLACE, f"{what} is made"
        case Op.UPDATE:
            return Weight.IN_PLACE, f"{what} is changed in place"
        case Op.REPLACE if machine:
            text = "deleted and made again: its services are away until all is installed; its "
            return Weight.REPLACEMENT, f"{what} is {text}address and its volumes stay"
        case Op.REPLACE:
            return Weight.REPLACEMENT, f"{what} is deleted and made again"
        case _ if change.kept:
            return Weight.IN_PLACE, f"{what} stays on the host, and no stack manages it any more"
        case _ if machine:
            return Weight.REPLACEMENT, f"{what} is deleted; its volumes stay"
        case _ if change.kind == "volume":
            return Weight.LOSS, "the volume is deleted, with all that is on it"
        case _:
            return Weight.REPLACEMENT, f"{what} is deleted"


def _of_step(change: Change, engine: str) -> tuple[Weight, str]:
    role, _, part = change.name.rpartition("/")
    role = role.rpartition("/")[2]
    runs = change.kind == "service" or part in ("service", "secrets")
    if change.op is Op.DELETE:
        return (Weight.RESTART, "the service is removed") if runs else (Weight.IN_PLACE, "removed")
    if change.op is Op.CREATE:
        return Weight.IN_PLACE, "the service starts" if runs else "new"
    if part == "verify":
        return Weight.NOTHING, "a recording is transcribed, as proof"
    if runs and role == "stt_server":
        return Weight.RESTART, stt_restart(engine)
    if runs and role in _RESTARTS:
        return Weight.RESTART, _RESTARTS[role]
    if part in ("model", "program", "programs", "packages"):
        return Weight.IN_PLACE, "fetched and tried beside what runs"
    return Weight.IN_PLACE, "in place"


def is_url(change: Change, field: Field) -> bool:
    """Whether a field is the address that clients use."""
    return change.name.endswith("/stt_server/verify") and field.path == "url"


def stt_restart(engine: str) -> str:
    """What clients notice of a restart of the STT service."""
    found = ENGINES.get(engine)
    if found is None or not found.restart:
        return "the STT service restarts: requests are refused meanwhile"
    return f"the STT service restarts: requests wait, {found.restart}; none is refused"
