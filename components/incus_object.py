"""Incus objects as Commands: the desired state is JSON on stdin of ``python -m host``."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal

import pulumi

from agent.difference import UNSET, Difference, compare, compare_object
from components.command import Command, Host, joined
from host.client import HostError
from host.egress import Egress
from host.objects import (
    ACL,
    INSTANCE,
    NETWORK,
    RULES,
    UUID,
    VOLUME,
    ObjectType,
    Place,
    is_rebuilt,
    owner_of,
)

#: For an ACL whose old rules need not stay until all is changed.
EXACT = ("--rules", "exact")
#: For an ACL that gets its new rules only once all is changed.
CLOSED_FIRST = ("--rules", "remove")


def host_command(host: Host, *words: str) -> str:
    """A call of ``host`` with the connection, as text for a shell here."""
    connection = ["--connection", str(host.connection)]
    return shlex.join([".venv/bin/python", "-m", "host", *connection, *words])


def egress_command(host: Host, bridge: str, *options: str) -> str:
    """What runs a command, which is its next word, while a bridge is open to the internet."""
    return host_command(host, "egress", "run", *options, bridge)


def _without_fetching(host: Host, bridge: str, found: list[Difference]) -> list[Difference]:
    """The drift of a bridge, apart from its being open while something is fetched."""
    way_out = ("config.raw.dnsmasq", "config.security.acls")
    rest = [each for each in found if each.field not in way_out]
    if len(rest) == len(found):
        return found
    egress = Egress(host.connection, bridge)
    with suppress(HostError):
        if egress.is_used() or not egress.is_open():  # it was read a moment ago
            return rest
    return found


def find_drift(
    host: Host,
    name: str,
    kind: ObjectType,
    place: Place,
    desired: Mapping[str, Any],
    create: pulumi.Input[str],
) -> list[Difference]:
    """Where the object on the host differs from what was applied last.

    A change of the configuration is not drift: the comparison is with the state's desired state.
    A volume that ``create`` is about to move from another storage pool is not read. Where somebody
    else's object is to be taken over, what differs is what that changes.
    """
    known = host.known(name)
    if host.live is None or host.is_left(name) or not (known or host.adopt):
        return []
    if known and kind is VOLUME and host.outputs(name).get("create", create) != create:
        return []
    project = "default" if kind in (ACL, NETWORK) else place.project or place.name
    actual = host.live.find(kind.name, place.name, project, place.member)
    if actual is None:
        return host.gone(name, f"{kind.name} {place.name}")
    if kind is INSTANCE and is_another(host, name, actual):
        what = "from another image" if is_rebuilt(actual) else "another one"
        return [Difference(f"machine {place.name}", what, "the one that was set up")]
    running = {"status": "Running"} if kind is INSTANCE else {}
    applied = _recorded(host, name, "stdin") or desired
    found = compare_object({**applied, **running}, actual, kind.unnamed)
    if kind is NETWORK:
        found = _without_fetching(host, place.name, found)
    return _owner(host, name, actual) + found


def _owner(host: Host, name: str, actual: Mapping[str, Any]) -> list[Difference]:
    """The owner, if it is not the recorded one; objects older than owner marks have none."""
    ours = host.known_owner if host.state.stack else "this stack"
    noted = "--owner" in (host.outputs(name) or {"create": "--owner"}).get("create", "")
    return compare("owner", ours, owner_of(actual)) if noted else []


def is_another(host: Host, name: str, actual: Mapping[str, Any]) -> bool:
    """Whether a container is not the one that the resource ``name`` has set up, but bears its name.

    A run that was cut off has made it again, or somebody else has, or it was rebuilt from another
    image: nothing is in it.
    """
    if is_rebuilt(actual):
        return True
    uuid = (_recorded(host, name, "stdout") or {}).get("uuid")
    return bool(uuid) and uuid != actual.get("config", {}).get(UUID, uuid)


def _recorded(host: Host, name: str, output: str) -> Mapping[str, Any] | None:
    """An object of JSON among the outputs of the last run; None if it is none."""
    try:
        found = json.loads((host.outputs(name) or {}).get(output) or "null")
    except ValueError:
        return None
    return found if isinstance(found, Mapping) else None


class IncusObject(Command):
    """An Incus project, network, profile, storage volume or container.

    ``within``: objects without which this one is not; their replacement replaces it. ``fixed``:
    what else an edit cannot change. A ``movable`` object can change its project and pool.
    """

    def __init__(
        self,
        name: str,
        host: Host,
        kind: ObjectType,
        place: Place,
        desired: Mapping[str, Any],
        *,
        within: Sequence[Command] = (),
        fixed: Sequence[str] = (),
        movable: bool = False,
        keep: bool = False,
        words: Sequence[str] = (),
        opts: pulumi.ResourceOptions,
    ) -> None:
        where = [place.name, *_options(place)]
        identity = [kind.name, place.name]
        if not movable:
            identity += [place.project, place.pool]
        # The owner is a word of the command: desired states stay readable before the first run.
        create = self._with_owner(host, "apply", kind.name, *where, *words)
        self.place = place
        self.found = find_drift(host, name, kind, place, desired, create)
        super().__init__(
            name,
            host,
            create=create,
            delete=None if keep else self._with_owner(host, "delete", kind.name, *where),
            stdin=json.dumps(desired, sort_keys=True, ensure_ascii=False),
            identity=[*identity, *fixed, *(owner.id for owner in within)],
            drift=self._own_drift(kind, tuple(words)),
            here=True,
            quiet=kind is ACL,  # it says all its rules, for AclRules
            opts=opts,
        )

    def _own_drift(self, kind: ObjectType, words: tuple[str, ...]) -> list[Difference]:
        """What an edit of the object itself restores: of an ACL's rules, AclRules does the rest."""
        if kind is not ACL or words == EXACT:
            return self.found
        others = _is_missing if words == CLOSED_FIRST else _is_too_much
        return [each for each in self.found if not others(each)]

    @staticmethod
    def _with_owner(host: Host, *words: str) -> pulumi.Input[str]:
        return joined(host_command(host, *words) + " --owner ", host.owner)


class AclRules(Command):
    """An ACL gets exactly its rules, once all that ``needs`` names is done.

    With ``close`` it loses what it allowed before: where a change fails, the service that ran so
    far is still reached. With ``open`` it gets what it allows from now on.
    """

    def __init__(
        self,
        name: str,
        host: Host,
        verb: Literal["close", "open"],
        acl: IncusObject,
        needs: Sequence[Command],
        opts: pulumi.ResourceOptions,
    ) -> None:
        wrong = _is_too_much if verb == "close" else _is_missing
        found = acl.found if host.known(name) else []
        super().__init__(
            name,
            host,
            create=host_command(host, verb, acl.place.name),
            stdin=acl.stdout,
            identity=[acl.id],
            drift=[each for each in found if wrong(each)],
            here=True,
            opts=pulumi.ResourceOptions.merge(
                opts, pulumi.ResourceOptions(depends_on=[acl, *needs], deleted_with=acl)
            ),
        )


def _is_too_much(difference: Difference) -> bool:
    """Whether it is a rule of an ACL that nobody has declared."""
    return difference.field in RULES and difference.wanted == UNSET


def _is_missing(difference: Difference) -> bool:
    """Whether it is a declared rule that an ACL has not."""
    return difference.field in RULES and difference.found == UNSET


def _options(place: Place) -> list[str]:
    project = ["--project", place.project] if place.project else []
    member = ["--member", place.member] if place.member else []
    return project + (["--pool", place.pool] if place.pool else []) + member
