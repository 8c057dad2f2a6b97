"""A domain's profiles: its own, and ``default`` with the machines' disk and network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pulumi

from components.command import incus
from components.incus_object import MARK, PROFILE, IncusObject
from components.templates import render
from declaration import infra
from declaration.gpu_devices import vendor_of
from declaration.settings import Connection


def desired_default_profile(bridge: str, pool: str) -> dict[str, Any]:
    """The profile ``default`` of a domain's project."""
    return {
        "description": "incus-stt: disk and network",
        "config": dict(MARK),
        "devices": {
            "eth0": {"type": "nic", "network": bridge, "name": "eth0"},
            "root": {"type": "disk", "pool": pool, "path": "/"},
        },
    }


def desired_profile(profile: infra.Profile) -> dict[str, Any]:
    """A profile as declared; one with a GPU gets a device that all may use.

    Services run as their own users, and a GPU device is root's alone (0660) unless ``mode`` or
    ``gid`` say otherwise. With NVIDIA's, ``nvidia.runtime`` brings the host's driver libraries into
    the container; with AMD's, ROCm needs /dev/kfd beside what Incus brings.
    """
    config = dict(profile.config)
    devices = {name: dict(device) for name, device in profile.devices.items()}
    amd = False
    for device in devices.values():
        if device.get("type") != "gpu":
            continue
        if vendor_of(device) == "nvidia":
            config.setdefault("nvidia.runtime", "true")
            config.setdefault("nvidia.driver.capabilities", "compute,utility")
        else:
            amd = True
        if device.get("gputype", "physical") == "physical" and not {"gid", "mode"} & set(device):
            device["mode"] = "0666"
    if amd:
        kfd = {"type": "unix-char", "source": "/dev/kfd", "path": "/dev/kfd", "mode": "0666"}
        devices.setdefault("kfd", kfd)
    return {
        "description": profile.description or "incus-stt",
        "config": {**config, **MARK},
        "devices": devices,
    }


class Profile(pulumi.ComponentResource):
    """An Incus profile in the domain's project."""

    def __init__(
        self,
        domain: str,
        name: str,
        desired: dict[str, Any],
        project: IncusObject,
        connection: Connection,
        opts: pulumi.ResourceOptions,
        fixed: Sequence[str] = (),
    ) -> None:
        super().__init__("stt:incus:Profile", f"{domain}/{name}", None, opts)
        self.object = IncusObject(
            f"{domain}/profile/{name}",
            PROFILE,
            [name],
            desired,
            connection=connection,
            project=domain,
            within=[project],
            fixed=fixed,
            # Incus makes and removes `default` with its project: it is emptied, not deleted.
            delete=empty_default(connection, domain) if name == "default" else None,
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({})


def empty_default(connection: Connection, project: str) -> str:
    """The script that gives the profile ``default`` back as Incus made it."""
    return render("host/empty_profile.sh.j2", incus=incus(connection, project))
