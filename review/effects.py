"""What a change does to those who use the services, in words; ``docs/changes.md`` has the proof."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

from declaration.notice import Notice, Notices
from engines.restart import restart_words
from engines.service import SERVICE
from review.changes import Change, Field, Op


class Weight(IntEnum):
    """How much a change asks of those who use the services."""

    NOTHING = 0
    IN_PLACE = 1
    RESTART = 2
    REPLACEMENT = 3
    LOSS = 4


#: What users notice of a service of which its role says nothing.
_RESTART = Notice("the service restarts: until it is up again, it may refuse or cut off requests")
#: Where nobody knows what roles say.
NO_NOTICES = Notices()
#: What an Incus object, or a value that is made once, is called.
OBJECTS = {
    "acl": "what may cross the bridge",
    "instance": "the machine",
    "network": "the bridge",
    "project": "the Incus project",
    "profile": "the profile",
    "volume": "the volume",
}
KEY = f"{SERVICE}/key"
#: The key of a client of stt:clients, before its name.
CLIENT_KEY = f"{SERVICE}/client/"
#: Runs before another domain gets the AI access (``global.ai_access``).
HAND_OVER = "ai_access/hand-over"
#: Steps of a machine that do their work beside what runs.
_BESIDE = ("model", "program", "programs", "packages")


def effect(
    change: Change, engines: Sequence[str], notices: Notices = NO_NOTICES
) -> tuple[Weight, str]:
    """How much, and what, in words.

    ``engines`` are the stack's, before and after; ``notices`` are what the roles say.
    """
    if change.name.startswith(CLIENT_KEY):
        return _of_client(change)
    if change.name == KEY or change.name in notices.kept:
        return _of_value(change, notices)
    if change.name == HAND_OVER:
        return _of_hand_over(change)
    if change.name.endswith("/acl/ai") and change.op is Op.UPDATE:
        return Weight.IN_PLACE, "domains that do not get the AI access are shut out, at the start"
    if change.kind in OBJECTS:
        return _of_object(change, OBJECTS[change.kind])
    return _of_step(change, engines, notices)


def _of_value(change: Change, notices: Notices) -> tuple[Weight, str]:
    if change.op is Op.CREATE:
        return Weight.IN_PLACE, "made, once"
    if change.name != KEY:
        gone = change.op is Op.DELETE
        return Weight.IN_PLACE, "removed" if gone else notices.kept[change.name]
    if change.op is Op.DELETE:
        text = "clients need the key of stt:apiKey, or none with stt:authentication none"
        return Weight.RESTART, text
    return Weight.RESTART, notices.kept.get(KEY, "another key")


def _of_hand_over(change: Change) -> tuple[Weight, str]:
    if change.op is Op.DELETE:
        return Weight.NOTHING, "the AI access no longer changes hands"
    text = "other domains' connections to STT and Ollama are cut, and the models are unloaded"
    return Weight.IN_PLACE, f"{text}: the next request waits until its model is loaded"


def _of_client(change: Change) -> tuple[Weight, str]:
    client = change.name.removeprefix(CLIENT_KEY)
    texts = {Op.CREATE: "made, once", Op.DELETE: f"{client} is refused from then on"}
    return Weight.IN_PLACE, texts.get(change.op, f"{client} needs another key")


def _of_object(change: Change, what: str) -> tuple[Weight, str]:
    machine, volume = change.kind == "instance", change.kind == "volume"
    match change.op:
        case Op.CREATE:
            return Weight.IN_PLACE, f"{what} is made"
        case Op.UPDATE if machine and any(_is_of_users(each) for each in change.fields):
            text = "restarts, with other users on the host: its services are down for some seconds"
            return Weight.RESTART, f"{what} {text}"
        case Op.UPDATE:
            kept = any(each.path == "at destroy" for each in change.fields)
            more = "; `destroy` treats it differently from then on" if kept else ""
            return Weight.IN_PLACE, f"{what} is changed in place{more}"
        case Op.REPLACE if machine:
            text = "deleted and made again: its services are down until all is installed; its "
            return Weight.REPLACEMENT, f"{what} is {text}address and its volumes stay"
        case Op.REPLACE if change.kept:
            return Weight.REPLACEMENT, f"{what} stays where it is, and a new, empty one is made"
        case Op.REPLACE if volume:
            return Weight.LOSS, "the volume is deleted with all that is on it, and made again"
        case Op.REPLACE:
            return Weight.REPLACEMENT, f"{what} is deleted and made again"
        case _ if change.kept:
            return Weight.IN_PLACE, f"{what} stays on the host, and no stack manages it any more"
        case _ if machine:
            return Weight.REPLACEMENT, f"{what} is deleted; its volumes stay"
        case _ if volume:
            return Weight.LOSS, "the volume is deleted, with all that is on it"
        case _:
            return Weight.REPLACEMENT, f"{what} is deleted"


def _is_of_users(field: Field) -> bool:
    """Whether a field decides who a machine's users are on the host."""
    return field.path.startswith(("config.security.idmap.", "config.raw.idmap"))


def is_service(change: Change) -> bool:
    """Whether it is the step that a service runs by."""
    return change.kind == "service" or change.name.endswith("/service")


def role_of(change: Change) -> str:
    """The role of a step."""
    return change.name.rpartition("/")[0].rpartition("/")[2]


def _of_step(change: Change, engines: Sequence[str], notices: Notices) -> tuple[Weight, str]:
    role, part = role_of(change), change.name.rpartition("/")[2]
    service, secrets = is_service(change), part == "secrets"
    if change.op is Op.REPLACE:
        return Weight.IN_PLACE, "made again with its machine"
    if change.op is Op.CREATE and not secrets:
        return Weight.IN_PLACE, "the service is new" if service else "new"
    if change.op is Op.DELETE and service:
        return Weight.REPLACEMENT, "the service is removed"
    if change.op is Op.DELETE and not secrets:
        return Weight.IN_PLACE, "removed"
    if change.name.endswith("/acl/closed"):
        return Weight.NOTHING, "what may not cross the bridge any more is closed, at the end"
    if change.name.endswith("/acl/ai-opened"):
        return Weight.IN_PLACE, "the domain that gets the AI access is let in, at the end"
    if part == "verify":
        return Weight.NOTHING, "a recording is transcribed, as proof"
    if (service or secrets) and role == SERVICE:
        return Weight.RESTART, restart_words(engines, change.seconds)
    if service or secrets:
        names = (f"{role}/{part}", *([f"{role}/service"] if secrets else []))
        said = next((notices.steps[each] for each in names if each in notices.steps), _RESTART)
        return Weight.RESTART if said.restart else Weight.IN_PLACE, said.words
    if part == "agent":
        return Weight.IN_PLACE, "what carries out the steps is sent again"
    if part in _BESIDE:
        return Weight.IN_PLACE, "fetched and tried beside what runs"
    return Weight.IN_PLACE, "in place"


def is_url(change: Change, field: Field) -> bool:
    """Whether a field is the address that clients use."""
    return change.name.endswith(f"/{SERVICE}/verify") and field.path == "url"


def new_address(shown: str) -> str:
    """What clients notice of another address of the STT service."""
    return f"refused at the old address from then on; clients use {shown}"
