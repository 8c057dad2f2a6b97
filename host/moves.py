"""What moves: a volume from another project, pool or member; a machine to another member.

Incus' own ``move`` of a machine leaves the volumes behind that it has attached. Here they come too.
They are copied while no machine that has them runs, with the first of these; what was copied goes
with the last.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping
from typing import Any

from host.client import Client, HostError, incus_words, shell
from host.cluster import member_of, members
from host.instance import stop
from host.objects import INSTANCE, VOLUME, Place, has_other_owner, is_marked, pools
from host.volume import exclusively

#: The key of a volume that is being copied to another member, and of its copy.
MOVING = "user.incus-stt.moving"
#: Seconds that Incus gets for a machine or a volume.
_DEADLINE = 3600
#: Seconds to wait for another machine of the domain, which moves with its volumes.
_LOCK_DEADLINE = 6 * _DEADLINE


def fetch_volume(client: Client, place: Place, former: str, owner: str) -> bool:
    """Bring a volume from the project's former name, or from the pool or member where it was.

    False if it stays on another member of the cluster, because a machine there has it: it comes
    with that machine (``bring_machine``).

    Raises:
        HostError: Incus cannot move it.
    """
    there = None
    if client.get(place.path(VOLUME)) is None:
        there = _find_volume(client, place, former, owner)
    if there and there.member != place.member and _users(client, there):
        return False
    if there:
        _move(client, there, place)
    if former:
        # Empty now, or still with something of somebody else's.
        client.run("project", "delete", former)
    return True


def _find_volume(client: Client, place: Place, former: str, owner: str) -> Place | None:
    """Where the volume is, if anywhere."""
    for project in filter(None, (place.project, former)):
        for pool in pools(client):
            for member in members(client) if place.member else [""]:
                there = Place(place.name, project, pool, member)
                found = client.get(there.path(VOLUME))
                if found and is_marked(found) and not has_other_owner(found, owner):
                    return there
    return None


def _move(client: Client, there: Place, place: Place) -> None:
    if there.member:
        _transfer(client, there, place)
        _volume(client, "delete", there)
        return
    words = [f"{there.pool}/{there.name}", f"{place.pool}/{place.name}", "--project", there.project]
    if there.project != place.project:
        words += ["--target-project", place.project]
    client.call("storage", "volume", "move", *words, deadline=_DEADLINE)


def _transfer(client: Client, there: Place, place: Place) -> None:
    """Make a copy of a volume on another member, snapshots included.

    Incus 6.0 itself copies between members in its project ``default`` only (incus#2221), and to
    another pool only on the member that is asked: it goes through a file where ``incus`` runs.
    """
    export = ("storage", "volume", "export", there.pool, there.name)
    bring = ("storage", "volume", "import", place.pool)
    options = ("--quiet", "--compression", "none", *there.target)
    connection = client.connection
    script = (
        "set -eu; work=$(mktemp -d -p /var/tmp incus-stt-move-XXXXXX); "
        "trap 'rm -rf \"$work\"' EXIT; "
        f'{incus_words(connection, export, there.project)} "$work/volume" {shlex.join(options)} '
        "</dev/null >/dev/null; "
        f'{incus_words(connection, bring, place.project)} "$work/volume" '
        f"{shlex.join([place.name, '--quiet', *place.target])} </dev/null"
    )
    done = subprocess.run(  # noqa: S603  # the operator's own host
        [*shell(connection), script],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_DEADLINE,
        check=False,
    )
    if done.returncode:
        raise HostError(
            f"The volume {there.name} was not copied from {there.member} to {place.member}: "
            f"{done.stderr.strip()}"
        )


def bring_machine(
    client: Client, place: Place, actual: Mapping[str, Any], member: str
) -> Mapping[str, Any]:
    """Bring a machine to a member of the cluster, with its volumes; as it is then.

    Machines of a domain move one by one: what the first one brings, the next one has already.

    Raises:
        HostError: Incus refuses it, a volume that is not a copy of its own is there already, or
            another machine has not moved in time.
    """
    with exclusively(
        f"moves-{place.project}", _LOCK_DEADLINE, f"move a machine of {place.project}"
    ):
        if member_of(actual) not in ("", member):
            _move_machine(client, place, actual, member)
            actual = client.get(place.path(INSTANCE)) or actual
        _settle(client, place, actual)
    return actual


def _move_machine(client: Client, place: Place, actual: Mapping[str, Any], member: str) -> None:
    """Move it, and what of its volumes is not there yet; it is stopped then.

    Where that fails, what it has stopped runs again where it was.
    """
    volumes = _volumes(client, place, actual)
    wanted = [volume for volume in volumes if _is_to_come(client, volume, member)]
    stopped: list[Place] = []
    try:
        for name in {place.name, *(name for volume in wanted for name in _users(client, volume))}:
            machine = Place(name, place.project)
            if (client.get(machine.path(INSTANCE)) or {}).get("status") == "Running":
                stopped.append(machine)
                stop(client, machine)
        for volume in wanted:
            _copy(client, volume, member)
        words = ("move", "--quiet", place.name, "--target", member)
        client.call(*words, project=place.project, deadline=_DEADLINE)
    except HostError:
        for machine in stopped:
            client.run("start", machine.name, project=machine.project)
        raise


def _settle(client: Client, place: Place, actual: Mapping[str, Any]) -> None:
    """Remove what a machine's volumes have left on the members that they came from."""
    for volume in _volumes(client, place, actual):
        if MOVING not in client.get(volume.path(VOLUME))["config"]:
            continue
        for member in members(client):
            old = Place(volume.name, volume.project, volume.pool, member)
            found = client.get(old.path(VOLUME))
            if found and found["config"].get(MOVING) == volume.member != member:
                if _users(client, old):
                    return  # until the last machine that has it is here
                _volume(client, "delete", old)
        _volume(client, "unset", volume, MOVING)


def _volumes(client: Client, place: Place, actual: Mapping[str, Any]) -> list[Place]:
    """The volumes that a machine has and that are on its own member."""
    there = [
        Place(device["source"], place.project, device["pool"], member_of(actual))
        for device in (actual.get("devices") or {}).values()
        if device.get("type") == "disk" and device.get("pool") and device.get("source")
    ]
    return [volume for volume in there if client.get(volume.path(VOLUME))]


def _users(client: Client, volume: Place) -> list[str]:
    """The machines that have a volume, by name."""
    used_by = (client.get(volume.path(VOLUME)) or {}).get("used_by") or []
    paths = (path.partition("?")[0] for path in used_by)
    return [path.rpartition("/")[2] for path in paths if path.startswith("/1.0/instances/")]


def _is_to_come(client: Client, volume: Place, member: str) -> bool:
    """Whether a volume is to be copied to a member; not where it came with another machine.

    Raises:
        HostError: another volume is there, and it is no copy that was cut off.
    """
    there = Place(volume.name, volume.project, volume.pool, member)
    found = client.get(there.path(VOLUME))
    if found is None or found["config"].get(MOVING) == member:
        return not _users(client, there)
    raise HostError(
        f"{member} has a volume {volume.name} already, and that of {volume.member} is to come "
        "there. Look at both, and remove the one that is not wanted: incus --project "
        f"{volume.project} storage volume delete {volume.pool} {volume.name} --target {member}"
    )


def _copy(client: Client, volume: Place, member: str) -> None:
    """Copy a volume to a member. What is left there of a copy that was cut off is made again."""
    there = Place(volume.name, volume.project, volume.pool, member)
    if client.get(there.path(VOLUME)) is not None:
        _volume(client, "delete", there)
    _volume(client, "set", volume, f"{MOVING}={member}")
    _transfer(client, volume, there)


def _volume(client: Client, verb: str, volume: Place, *words: str) -> None:
    more = (*volume.words, *words, *volume.target)
    client.call("storage", "volume", verb, *more, project=volume.project)
