"""Containers: created from an image, edited, started, booted."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from declaration.idmap import ISOLATED
from host import inotify
from host.client import Client, HostError
from host.objects import BASE_IMAGE, IMAGE, INSTANCE, UUID, Place, is_marked, is_rebuilt, merge

#: Where a local image stands in for one of a server that cannot be reached (bootstrap/image.sh).
STAND_IN = "incus-stt/"
#: Seconds that a container gets to boot, and to stop by itself.
BOOT_DEADLINE, STOP_DEADLINE = 300, 60
#: Seconds that it gets for its address after that; a request that was lost comes again by then.
ADDRESS_DEADLINE = 30
#: What to do about the address of a proxy device, which may be an operator's or Open WebUI's.
_OTHER_ADDRESS = (
    "Change the address of that device in the topology; for Open WebUI's own (publish), "
    "stt:webui.publish"
)
#: Keys that decide who a container's users are on the host.
_USERS = (
    *(ISOLATED, "security.idmap.base", "security.idmap.size"),
    *("security.privileged", "raw.idmap"),
)


def stand_in(image: str) -> str:
    """The local alias for a server's image: ``images:debian/12`` has ``…/images/debian/12``."""
    return STAND_IN + image.replace(":", "/", 1)


def stood_in_by(image: str, state: Mapping[str, Any]) -> str:
    """What a container was made from, where that stands in for another distribution; else empty."""
    config = state.get("config") or {}
    made_from = str(config.get("image.description", "")).partition(",")[0]
    same = made_from.lower().replace(" ", "/") == image.partition(":")[2]
    return made_from if config.get("image.variant") == "incus-stt" and not same else ""


def apply_instance(
    client: Client, place: Place, desired: Mapping[str, Any], image: str
) -> dict[str, Any]:
    """Create the container, or give it its desired state; start it and wait until it has booted.

    One that somebody has rebuilt from another image is created again. The desired ``member`` is
    where in a cluster it is: from another one it moves there, with its volumes.
    What was done, and the container's UUID.

    Raises:
        HostError: Incus refuses it, or it does not boot.
    """
    desired = dict(desired)
    member = str(desired.pop("member", ""))
    actual = client.get(place.path(INSTANCE))
    if actual is not None and is_marked(actual) and (_half_created(actual) or is_rebuilt(actual)):
        client.call("delete", "--force", place.name, project=place.project)
        actual = None
    if actual is None:
        done = _create(client, place, desired, image, member)
    else:
        if member:
            from host.moves import bring_machine  # not at the top: it needs this module

            actual = bring_machine(client, place, actual, member)
        _edit(client, place, desired, actual)
        done = "edited"
    made = client.get(place.path(INSTANCE)) or {}
    _note_image(client, place, made.get("config", {}))
    if made.get("status") != "Running":
        started = client.run("start", place.name, project=place.project)
        if started.returncode:
            raise HostError(_explain(started.stderr))
    wait_until_booted(client, place)
    _wait_for_address(client, place, _address(desired))
    return {"done": done, "uuid": made.get("config", {}).get(UUID, "")}


def _half_created(actual: Mapping[str, Any]) -> bool:
    """Whether Incus was stopped while it created this container: its root may be incomplete.

    Incus defers the image's templates as the last step of creating a container, and drops the note
    of it when the container first starts (incusd, ``CreateInstanceFromImage`` and ``onStart``). One
    that has never been used holds nothing to lose.
    """
    never_used = str(actual.get("last_used_at", "")).startswith(("0001-", "1970-"))
    created = (actual.get("config") or {}).get("volatile.apply_template")
    return never_used and not created


def _create(
    client: Client, place: Place, desired: Mapping[str, Any], image: str, member: str
) -> str:
    local = stand_in(image)
    if client.run("image", "info", local).returncode == 0:
        image = local
    words = ["create", "--quiet", image, place.name, *(["--target", member] if member else [])]
    made = client.run(*words, project=place.project, stdin=json.dumps(desired), deadline=1800)
    if made.returncode:
        raise HostError(
            f"{made.stderr.strip()}\nThe image {image} cannot be used (above: why). Check "
            "stt:image; `make up` builds one where no image server is reached."
        )
    return f"created from the image {image}"


def _note_image(client: Client, place: Place, config: Mapping[str, Any]) -> None:
    """Keep the fingerprint of the image, which Incus itself changes when a container is rebuilt."""
    if IMAGE not in config and (base := config.get(BASE_IMAGE)):
        client.call("config", "set", place.name, f"{IMAGE}={base}", project=place.project)


def _edit(
    client: Client, place: Place, desired: Mapping[str, Any], actual: Mapping[str, Any]
) -> None:
    wanted = merge(INSTANCE, desired, actual)
    # A running machine keeps its lease, and Incus refuses another address for it; its users on the
    # host are others only once it starts.
    restarts = (_address(actual), _users(actual)) != (_address(desired), _users(wanted))
    if restarts and actual.get("status") == "Running":
        stop(client, place)
    if failure := _put(client, place, wanted):
        # Incus keeps the old configuration, but the proxy devices that it had stopped for the new
        # one stay stopped: they are taken away and given again.
        before = merge(INSTANCE, actual, actual)
        others = {
            name: device
            for name, device in before["devices"].items()
            if device.get("type") != "proxy"
        }
        _put(client, place, {**before, "devices": others})
        _put(client, place, before)
        raise HostError(_explain(failure))


def _address(state: Mapping[str, Any]) -> str:
    nic = (state.get("devices") or {}).get("eth0") or {}
    return str(nic.get("ipv4.address", ""))


def _users(state: Mapping[str, Any]) -> list[str]:
    """What decides who a container's users are on the host; not set and false are the same."""
    config = state.get("config") or {}
    return [config.get(key, "").replace("false", "") for key in _USERS]


def _put(client: Client, place: Place, state: Mapping[str, Any]) -> str:
    """What Incus says against an edit; empty if it did it."""
    done = client.run("config", "edit", place.name, project=place.project, stdin=json.dumps(state))
    return done.stderr.strip() if done.returncode else ""


def _explain(said: str) -> str:
    """What Incus said, and for the frequent cases what to do."""
    advice = ""
    if "address already in use" in said:
        advice = (
            "Something on the host has the address of a proxy device already. "
            f"{_OTHER_ADDRESS}, or stop the other program."
        )
    elif "receive fd from listener process" in said:
        # Incus starts two processes for a proxy device. On a busy host the one that waits for the
        # listener reports first, and the listener's own reason is lost (2 of 30 tries, Incus 6.0).
        advice = (
            "Incus does not say why; most often something on the host has the address of a proxy "
            f"device already. See with: ss -ltnp. {_OTHER_ADDRESS}, or stop the other program."
        )
    elif "annot assign requested address" in said:
        advice = f"The address of a proxy device does not belong to the host. {_OTHER_ADDRESS}."
    return "\n".join(filter(None, (said.strip(), advice)))


def stop(client: Client, place: Place) -> None:
    """Stop a container, by force where it takes too long.

    Raises:
        HostError: Incus refuses even that.
    """
    words = ["stop", place.name, "--timeout", str(STOP_DEADLINE)]
    if client.run(*words, project=place.project).returncode:
        client.call("stop", "--force", place.name, project=place.project)


def _wait_for_address(client: Client, place: Place, address: str) -> None:
    """Wait until a container has its address, which its DHCP client asks for while it boots.

    The bridge's DNS and DHCP server starts again whenever the bridge is edited: what was asked at
    that moment is asked again seconds later. An image that asks nobody is not waited for for ever.
    """
    end = time.monotonic() + ADDRESS_DEADLINE
    path = f"{place.path(INSTANCE).replace('?', '/state?')}"
    while address and time.monotonic() < end:
        nics = ((client.get(path) or {}).get("network") or {}).values()
        found = [each.get("address") for nic in nics for each in nic.get("addresses") or []]
        if address in found:
            return
        time.sleep(0.2)


def wait_until_booted(client: Client, place: Place) -> None:
    """Wait for a container that was started.

    Raises:
        HostError: it did not boot within ``BOOT_DEADLINE`` s.
    """
    end = time.monotonic() + BOOT_DEADLINE
    while True:
        words = ["exec", place.name, "--", "systemctl", "is-system-running"]
        said = client.run(*words, project=place.project).stdout.strip()
        if said in ("running", "degraded"):
            return
        if time.monotonic() > end:
            raise HostError(
                f"It did not finish booting in {BOOT_DEADLINE} s; systemd says: "
                f"{said or 'nothing'}. See: incus --project {place.project} console --show-log "
                f"{place.name}. With many machines on the host, raise a limit of its kernel: "
                f"{inotify.RAISE}"
            )
        time.sleep(0.2)
