"""Volumes whose owners Incus translates for each machine that has them (``security.shifted``)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from agent.machine import flock, poll
from host.client import Client, HostError, user_cache
from host.instance import stop, wait_until_booted
from host.objects import INSTANCE, SHIFTED, VOLUME, Place, apply_object

#: The first ZFS whose mounts can translate owners.
_ZFS = (2, 2)
#: Seconds to wait for another volume, whose machines are stopped and started: they may be the same.
_LOCK_DEADLINE = 1800.0


def apply_volume(client: Client, place: Place, desired: Mapping[str, Any]) -> dict[str, Any]:
    """``apply_object`` for a volume.

    Incus refuses to begin with that while a machine with the volume runs: such machines are
    stopped meanwhile.

    Raises:
        HostError: the host cannot translate owners, or Incus refuses the edit.
    """
    actual = client.get(place.path(VOLUME))
    if SHIFTED not in desired["config"] or (actual and actual["config"].get(SHIFTED) == "true"):
        return apply_object(client, VOLUME, place, desired)
    if why := _why_not(client, place.pool):
        raise HostError(
            f"A machine with users of its own on the host is to have the volume {place.name}, and "
            f"this host cannot translate its owners: {why}. Give the machines "
            'config: {security.idmap.isolated: "false"} in the topology, or take a storage pool '
            "that can (stt:pool); see docs/security.md."
        )
    if actual is None:
        return apply_object(client, VOLUME, place, desired)
    with (
        exclusively("volumes", _LOCK_DEADLINE, "make its volumes ready"),
        _stopped(client, place, actual),
    ):
        return apply_object(client, VOLUME, place, desired)


def _why_not(client: Client, pool: str) -> str:
    """Why the owners of a mount cannot be translated; empty if they can."""
    server = (client.get("/1.0") or {}).get("environment") or {}
    if (server.get("kernel_features") or {}).get("idmapped_mounts") != "true":
        return "its kernel has no idmapped mounts"
    driver = (client.get(f"/1.0/storage-pools/{pool}") or {}).get("driver")
    for each in server.get("storage_supported_drivers") or []:
        version = tuple(int(part) for part in each["Version"].split(".")[:2] if part.isdigit())
        if driver == each["Name"] == "zfs" and version < _ZFS:
            return f"ZFS {each['Version']} has no idmapped mounts, which 2.2 has"
    return ""


@contextlib.contextmanager
def exclusively(what: str, deadline: float, work: str) -> Iterator[None]:
    """Be the only one on this machine that works on ``what``, a word; ``work`` is what is done.

    Raises:
        HostError: another run does not finish in time.
    """
    place = user_cache() / f"{what}.lock"
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with place.open("w") as file:
        if not poll(lambda: flock(file.fileno()), deadline):
            raise HostError(
                f"Another run on this machine did not {work} within {deadline:.0f} s. See what it "
                "does (ps aux), end it if it hangs, then run up again."
            )
        yield


@contextlib.contextmanager
def _stopped(client: Client, place: Place, volume: Mapping[str, Any]) -> Iterator[None]:
    """Have the running machines with a volume stopped meanwhile."""
    machines: list[Place] = []
    try:
        for path in volume.get("used_by") or []:
            kind, _, name = path.removeprefix("/1.0/").partition("?")[0].partition("/")
            machine = Place(name, place.project)
            if kind != "instances":
                continue
            if (client.get(machine.path(INSTANCE)) or {}).get("status") == "Running":
                machines.append(machine)
                stop(client, machine)
        yield
    finally:
        for machine in machines:
            client.call("start", machine.name, project=machine.project)
        for machine in machines:
            wait_until_booted(client, machine)
