"""What ``pulumi preview --json`` says, as changes of resources, field by field."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from engines.restart import last_restart

#: Pulumi's words for a value that is known only while `up` runs, and for a secret.
UNKNOWN, SECRET = "04da6b54-80e4-46f7-96ec-b56ff0331ba9", "[secret]"
_COMMAND = "command:local:Command"
#: What depends on the machine of Pulumi, or is not for people.
_IGNORED = {"interpreter", "logging", "addPreviousOutputInEnv", "create", "delete"}
_MISSING = "–"
#: Pulumi's word on its plugins.
_PLUGIN = re.compile(r"using pulumi-(language|resource)-[a-z]+ from \$PATH at \S+")
#: What becomes of an object, by whether it has a command that deletes it.
_AT_DESTROY = {True: "deleted", False: "kept"}


class Op(StrEnum):
    """What happens to a resource."""

    CREATE = "create"
    UPDATE = "update"
    REPLACE = "replace"
    DELETE = "delete"


@dataclass(frozen=True)
class Field:
    """A value that changes: its path in what is declared, and both values as texts."""

    path: str
    old: str
    new: str


_OTHER_SECRETS = Field("secrets", "(not shown)", "(others, not shown)")


@dataclass(frozen=True)
class Change:
    """What happens to a resource.

    ``name`` is the resource's, such as ``ai-tools/gpu-server/stt_server/service``. ``kind`` is that
    of the step (``service``) or of the Incus object (``instance``), if it is one. ``drift``:
    what somebody changed on the host and `up` restores. ``kept``: it stays on the host although
    the stack gives it up. ``seconds``: what the last start of its role's service took, where that
    service stays what it is.
    """

    name: str
    op: Op
    kind: str = ""
    fields: tuple[Field, ...] = ()
    drift: tuple[str, ...] = ()
    kept: bool = False
    seconds: float | None = None


@dataclass(frozen=True)
class Preview:
    """A preview: its changes, and what the program said, by severity."""

    changes: tuple[Change, ...]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def read_preview(document: Mapping[str, Any]) -> Preview:
    """The changes that a preview of a stack with a state tells."""
    found = []
    seconds = dict(_seconds(document))
    for step in document.get("steps") or []:
        state = step.get("newState") or step.get("oldState") or {}
        op = str(step["op"])
        if op in set(Op) and state.get("type") == _COMMAND:
            old = (step.get("oldState") or {}).get("inputs") or {}
            new = (step.get("newState") or {}).get("inputs") or {}
            change = _change(step["urn"], Op(op), old, new)
            if SECRET == old.get("stdin") == new.get("stdin") and "stdin" in _told(step):
                change = replace(change, fields=(*change.fields, _OTHER_SECRETS))
            role = change.name.rpartition("/")[0]
            found.append(replace(change, seconds=seconds.get(f"{role}/service")))
    return Preview(tuple(found), *_said(document))


def _seconds(document: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """What the last start of each service took, by its step; of one that changes its unit, none."""
    for step in document.get("steps") or []:
        old, new = (step.get(key) or {} for key in ("oldState", "newState"))
        seconds = last_restart((old.get("outputs") or {}).get("stdout"))
        if seconds is None:
            continue
        if len({_unit(state.get("inputs") or {}) for state in (old, new) if state}) == 1:
            yield step["urn"].rpartition("::")[2], seconds


def _unit(inputs: Mapping[str, Any]) -> str:
    spec = _parsed(inputs.get("stdin"))
    return str((spec.get("spec") or {}).get("unit", "")) if isinstance(spec, dict) else ""


def compare(base: Mapping[str, Any], head: Mapping[str, Any]) -> Preview:
    """What differs between two previews of an empty state: all that can be known without a host."""
    before, after = _declared(base), _declared(head)
    replaced: set[str] = set()
    found = []
    for urn in [*after, *(urn for urn in before if urn not in after)]:
        old, new = before.get(urn), after.get(urn)
        if old is None or new is None:
            op = Op.CREATE if old is None else Op.DELETE
        elif _is_replaced(old, new, replaced):
            op = Op.REPLACE
            replaced.add(urn)
        elif _is_changed(old["inputs"], new["inputs"]):
            op = Op.UPDATE
        else:
            continue
        inputs = [(each or {}).get("inputs") or {} for each in (old, new)]
        found.append(_change(urn, op, *inputs))
    return Preview(tuple(found), *_said(head))


def _declared(document: Mapping[str, Any]) -> dict[str, Any]:
    states = (step.get("newState") or {} for step in document.get("steps") or [])
    return {state["urn"]: state for state in states if state.get("type") == _COMMAND}


def _said(document: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The program's notes and warnings; Pulumi's own, of its plugins, are not for people."""
    found: dict[str, list[str]] = {"info": [], "warning": []}
    for each in document.get("diagnostics") or []:
        text = str(each.get("message", "")).strip().removeprefix("warning: ")
        if each.get("severity") in found and not _PLUGIN.fullmatch(text):
            found[each["severity"]].append(text)
    return tuple(found["info"]), tuple(found["warning"])


def _told(step: Mapping[str, Any]) -> set[str]:
    """The inputs of which Pulumi says that they differ."""
    return {re.split(r"[.\[]", path)[0] for path in step.get("detailedDiff") or {}}


def _is_replaced(old: Mapping[str, Any], new: Mapping[str, Any], replaced: set[str]) -> bool:
    """Whether an object is another one: by what it is known by, or by what that depends on."""
    depends = (new.get("propertyDependencies") or {}).get("triggers") or []
    within = new.get("deletedWith") in replaced or bool(replaced & set(depends))
    return within or _known_triggers(old, new)


def _is_changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether anything differs that is known, the command itself too."""
    commands = [(old.get(key), new.get(key)) for key in ("create", "delete")]
    return any(one != two and UNKNOWN not in (one, two) for one, two in commands) or any(
        True for _ in _fields(old, new)
    )


def _known_triggers(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    pair = [each["inputs"].get("triggers") or [] for each in (old, new)]
    return len(pair[0]) != len(pair[1]) or any(
        one != two for one, two in zip(*pair, strict=True) if UNKNOWN not in (one, two)
    )


def _change(urn: str, op: Op, old: Mapping[str, Any], new: Mapping[str, Any]) -> Change:
    both = op in (Op.UPDATE, Op.REPLACE)
    return Change(
        urn.rpartition("::")[2],
        op,
        _kind(new or old),
        tuple(_fields(old, new)) if both else (),
        tuple(_drift(old, new)),
        kept=op in (Op.DELETE, Op.REPLACE) and not old.get("delete"),
    )


def _kind(inputs: Mapping[str, Any]) -> str:
    spec = _parsed(inputs.get("stdin"))
    if isinstance(spec, dict) and isinstance(spec.get("kind"), str):
        return str(spec["kind"])
    triggers = inputs.get("triggers") or []
    return str(triggers[1]) if len(triggers) > 2 and isinstance(triggers[1], str) else ""


def _drift(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """The lines of ``DRIFT`` that this preview found; the line that begins with @ has the time."""
    before, after = ((each.get("environment") or {}).get("DRIFT", "") for each in (old, new))
    if before != after:
        yield from (line for line in str(after).splitlines() if not line.startswith("@"))


def _fields(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Field]:
    for key in sorted({*old, *new} - _IGNORED - {"environment", "triggers", "stdin"}):
        yield from _differences(key, old.get(key), new.get(key))
    yield from _differences("identity", _shown_triggers(old), _shown_triggers(new))
    if bool(old.get("delete")) != bool(new.get("delete")):
        kept = [_AT_DESTROY[bool(each.get("delete"))] for each in (old, new)]
        yield Field("at destroy", *kept)
    before, after = old.get("stdin"), new.get("stdin")
    if SECRET in (before, after):
        if before != after:
            yield _OTHER_SECRETS
        return
    before, after = _parsed(before), _parsed(after)
    if (
        isinstance(before, dict)
        and isinstance(after, dict)
        and "spec" in before
        and "spec" in after
    ):
        before, after = before["spec"], after["spec"]
    yield from _differences("", before, after)


def _shown_triggers(inputs: Mapping[str, Any]) -> Any:
    """What an object is known by; what is made only while `up` runs says nothing to a reader."""
    return [each if each != UNKNOWN else "" for each in inputs.get("triggers") or []]


def _parsed(text: Any) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return text


def _differences(path: str, old: Any, new: Any) -> Iterator[Field]:
    if old == new or UNKNOWN in (old, new):
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*new, *(key for key in old if key not in new)]:
            inner = f"{path}.{key}" if path else str(key)
            yield from _differences(inner, old.get(key), new.get(key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, (one, two) in enumerate(zip(old, new, strict=True)):
            yield from _differences(f"{path}[{number}]", one, two)
    else:
        yield Field(path or "all", _text(old), _text(new))


def _text(value: Any) -> str:
    if value is None:
        return _MISSING
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
