"""Incus objects: created or taken over, edited by a typed merge, deleted.

An edit replaces the whole object. What Incus computes itself is repeated to it: Incus refuses, or
forgets, what an edit leaves out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import quote

from host.client import Client, HostError
from host.cluster import member_of, prepare_network
from host.ways_out import loses_internet, opens_internet

#: Written into every object that this program makes, so that it knows its own.
MARK = {"user.managed-by": "incus-stt"}
#: The key of an object's owner: Pulumi project, stack, and the id that the stack made for itself.
OWNER = "user.incus-stt.owner"
#: The key of the fingerprint of the image that a container was made from, and Incus' own for it.
IMAGE, BASE_IMAGE = "user.incus-stt.image", "volatile.base_image"
#: Incus' key for a volume whose owners it translates for each container that has it.
SHIFTED = "security.shifted"
#: Incus' key for what makes a container this one, and not another one of its name.
UUID = "volatile.uuid"


@dataclass(frozen=True)
class ObjectType:
    """A type of Incus object.

    ``words`` are how the client calls it, ``path`` is where the API has it, and ``computed``
    matches configuration keys that Incus sets itself.
    """

    name: str
    words: tuple[str, ...]
    path: str
    computed: str

    @property
    def unnamed(self) -> str:
        """Matches configuration keys that no desired state names: Incus' own, owner and image."""
        return f"{self.computed}|^({re.escape(OWNER)}|{re.escape(IMAGE)})$"


PROJECT = ObjectType("project", ("project",), "/1.0/projects/{name}", r"^(volatile|features)[.]")
NETWORK = ObjectType(
    "network", ("network",), "/1.0/networks/{name}?project={project}", r"^volatile[.]"
)
ACL = ObjectType(
    "acl", ("network", "acl"), "/1.0/network-acls/{name}?project={project}", r"^volatile[.]"
)
PROFILE = ObjectType(
    "profile", ("profile",), "/1.0/profiles/{name}?project={project}", r"^volatile[.]"
)
#: A storage pool gives a new volume defaults of its own (size, block.filesystem …).
VOLUME = ObjectType(
    "volume",
    ("storage", "volume"),
    "/1.0/storage-pools/{pool}/volumes/custom/{name}?project={project}",
    ".",
)
INSTANCE = ObjectType(
    "instance", ("config",), "/1.0/instances/{name}?project={project}", r"^(volatile|image)[.]"
)
TYPES = {each.name: each for each in (PROJECT, ACL, NETWORK, PROFILE, VOLUME, INSTANCE)}
#: The rules of an ACL.
RULES = ("egress", "ingress")
#: The end of the name of a bridge's ACL for those who have the AI access, one at a time. It makes
#: the name too long for another bridge's.
AI_SUFFIX = "-exclusive-ai"
#: What an edit of an ACL does to its rules.
RuleChange = Literal["add", "remove", "exact"]
#: What an edit replaces, by type, beside ``description`` and ``config``.
_MORE = {
    "acl": RULES,
    "profile": ("devices",),
    "instance": ("devices", "profiles", "architecture", "ephemeral", "stateful"),
}


def merge(
    kind: ObjectType, desired: Mapping[str, Any], actual: Mapping[str, Any]
) -> dict[str, Any]:
    """The object as an edit needs it: the desired state, and what Incus computed."""
    config = dict(desired.get("config") or {})
    for key, value in (actual.get("config") or {}).items():
        if key not in config and re.match(kind.unnamed, key):
            config[key] = value
    fields = ("description", *_MORE.get(kind.name, ()))
    merged = {key: desired.get(key, actual.get(key)) for key in fields}
    return {**{key: value for key, value in merged.items() if value is not None}, "config": config}


@dataclass(frozen=True)
class Place:
    """Where an object is; ``member`` of a cluster only a volume names."""

    name: str
    project: str = ""
    pool: str = ""
    member: str = ""

    def path(self, kind: ObjectType) -> str:
        """Its path in the API."""
        values = {key: quote(value, safe="") for key, value in vars(self).items()}
        target = f"&target={values['member']}" if self.member else ""
        return kind.path.format(**values) + target

    @property
    def target(self) -> list[str]:
        """Its member for the client."""
        return ["--target", self.member] if self.member else []

    @property
    def words(self) -> list[str]:
        """Its name for the client, after its pool."""
        return [self.pool, self.name] if self.pool else [self.name]


def owner_of(state: Mapping[str, Any]) -> str:
    """The owner that an object names; empty if nobody has noted one."""
    return str((state.get("config") or {}).get(OWNER, ""))


def split_owner(owner: str) -> tuple[str, str, str]:
    """Project, stack and id of an owner."""
    project, _, rest = owner.partition("/")
    stack, _, identity = rest.partition("/")
    return project, stack, identity


def has_other_owner(state: Mapping[str, Any], owner: str) -> bool:
    """Whether an object names another owner than this one."""
    return owner_of(state) not in ("", owner)


def is_rebuilt(state: Mapping[str, Any]) -> bool:
    """Whether somebody has put another image into a container (`incus rebuild`)."""
    config = state.get("config") or {}
    return config.get(IMAGE, "") not in ("", config.get(BASE_IMAGE, ""))


def is_marked(state: Mapping[str, Any]) -> bool:
    """Whether this program has made an object."""
    return MARK.items() <= (state.get("config") or {}).items()


def apply_object(
    client: Client,
    kind: ObjectType,
    place: Place,
    desired: Mapping[str, Any],
    *,
    rules: RuleChange = "add",
) -> dict[str, Any]:
    """Create the object, or give it its desired state; what was done.

    Of an ACL that says the desired rules too, for ``set_rules``. With ``rules`` ``add`` it keeps
    those that it had besides, except the one for the internet; with ``remove`` it loses those of
    sources that no desired rule has, gets no new ones, and ``at`` tells when that was; with
    ``exact`` it has the desired ones. ``cut`` is there if it led to the internet and does no more.

    Raises:
        HostError: Incus refuses it.
    """
    actual = client.get(place.path(kind))
    verb, state = ("create", dict(desired)) if actual is None else ("edit", {})
    if actual is not None:
        state = merge(kind, desired, actual)
    said: dict[str, Any] = {}
    if kind is ACL:
        had = {field: actual[field] if actual else [] for field in RULES}
        state |= {field: _rules(desired[field], had[field], rules) for field in RULES}
        said = {field: desired[field] for field in RULES}
        if rules == "remove":
            said["at"] = datetime.now(UTC).isoformat()  # what comes after it runs again
        said |= _cut(had["egress"], state["egress"])
    if kind is NETWORK and actual is None:
        prepare_network(client, place.name, state)
    words = [*kind.words, verb, *place.words, *place.target]
    client.call(*words, project=place.project, stdin=json.dumps(state))
    return {"done": "created" if verb == "create" else "edited", **said}


def _rules(wanted: Sequence[Any], had: Sequence[Any], change: RuleChange) -> list[Any]:
    if change == "add":
        # What is no longer allowed goes when all is changed (set_rules): until then, and where
        # a change fails, services are where they were. Nobody who closes the way to the internet
        # waits for that, and what is to be installed opens it by itself (host.egress).
        closes = not opens_internet(wanted)
        kept = [rule for rule in had if not (closes and opens_internet([rule]))]
        return [*wanted, *(rule for rule in kept if rule not in wanted)]
    if change == "exact":
        return list(wanted)
    # Who stays is not cut off, also where a port of its rules changes.
    sources = {rule["source"] for rule in wanted}
    return [rule for rule in had if rule.get("source") in sources]


def set_rules(client: Client, place: Place, rules: Mapping[str, Any]) -> dict[str, Any]:
    """Have an ACL with exactly these rules; what was done.

    ``cut`` is there if it led to the internet and does no more.

    Raises:
        HostError: there is no such ACL, or Incus refuses it.
    """
    actual = client.get(place.path(ACL))
    if actual is None:
        raise HostError(f"The network ACL {place.name} is not there. Run up again.")
    wanted = {field: rules[field] for field in RULES}
    if wanted == {field: actual[field] for field in RULES}:
        return {"done": "nothing to change"}
    state = json.dumps({**merge(ACL, actual, actual), **wanted})
    client.call(*ACL.words, "edit", *place.words, project=place.project, stdin=state)
    return {"done": "changed", **_cut(actual["egress"], wanted["egress"])}


def _cut(before: Sequence[Any], after: Sequence[Any]) -> dict[str, Any]:
    return {"cut": True} if loses_internet(before, after) else {}


def delete_object(client: Client, kind: ObjectType, place: Place, owner: str) -> dict[str, Any]:
    """Delete the object, where it is there and has no other owner.

    Incus makes and removes a project's profile ``default`` with the project: it is emptied. A
    project that still has volumes stays.

    Raises:
        HostError: Incus refuses it.
    """
    actual = client.get(place.path(kind))
    if actual is None:
        return {"done": "was not there"}
    if has_other_owner(actual, owner):
        why = f"The {kind.name} {place.name} stays: {owner_of(actual)} has taken it over."
        return {"done": "left", "why": why}
    if kind is PROFILE and place.name == "default":
        empty = json.dumps({"config": {}, "devices": {}})
        done = client.run("profile", "edit", "default", project=place.project, stdin=empty)
        if done.returncode:
            raise HostError(_still_used(client, place.project, done.stderr.strip()))
        return {"done": "emptied"}
    if kind is PROJECT and (volumes := _volumes(client, place.name)):
        _disown(client, place.name, volumes)
        return {"done": "kept", "why": _kept_volumes(place.name, volumes)}
    if kind is ACL:
        _detach(client, place.name, actual["used_by"])
    words = [*kind.words, "delete", *place.words, *place.target]
    if kind is INSTANCE:
        words = ["delete", "--force", place.name]
    try:
        client.call(*words, project=place.project)
    except HostError:
        if client.get(place.path(kind)) is not None:
            raise
    return {"done": "deleted"}


def _detach(client: Client, acl: str, used_by: Sequence[str]) -> None:
    """Take an ACL from the bridges that have it: with a domain's new name, theirs goes next."""
    from host.hold import held  # not at the top: most edits start sooner without

    for path in used_by:
        bridge = client.get(path)
        if bridge is None:
            continue
        rest = [name for name in bridge["config"]["security.acls"].split(",") if name != acl]
        words = ("network", "set", bridge["name"], f"security.acls={','.join(rest)}")
        with held(client.connection, bridge["name"]):
            client.call(*words, project="default")


def _still_used(client: Client, project: str, said: str) -> str:
    containers = [each["name"] for each in client.get(f"/1.0/instances?{_all_of(project)}") or []]
    lines = [
        said,
        f"Containers of the project {project} that this stack has no record of: "
        f"{', '.join(containers)}. An `up` that was cut off may have left them. The next up takes "
        "over those that are declared, and then destroy removes them. To remove them yourself:",
    ]
    lines += [f"  incus --project {project} delete --force {name}" for name in containers]
    return "\n".join(lines if containers else lines[:1])


def _all_of(project: str) -> str:
    return f"recursion=1&project={quote(project)}"


def pools(client: Client) -> list[str]:
    """The names of the storage pools."""
    listed = client.get("/1.0/storage-pools") or []
    return [str(path).rsplit("/", 1)[1] for path in listed]


def _volumes(client: Client, project: str) -> list[Place]:
    found: list[Place] = []
    for pool in pools(client):
        path = f"/1.0/storage-pools/{quote(pool)}/volumes/custom?{_all_of(project)}"
        for volume in client.get(path) or []:
            found.append(Place(volume["name"], project, pool, member_of(volume)))
    return found


def _disown(client: Client, project: str, volumes: list[Place]) -> None:
    """Take the owner away from what stays, so that any stack may have it next."""
    client.call("project", "unset", project, OWNER)
    for place in volumes:
        words = ("storage", "volume", "unset", *place.words, OWNER, *place.target)
        client.run(*words, project=project)


def _kept_volumes(project: str, volumes: list[Place]) -> str:
    lines = [
        f"The project {project} stays, with the models and data in its volumes. The next up takes "
        "them over. To remove them:"
    ]
    delete = f"  incus --project {project} storage volume delete"
    lines += [" ".join([delete, *each.words, *each.target]) for each in volumes]
    return "\n".join([*lines, f"  incus project delete {project}"])
