"""The desired state of a domain's Incus objects, as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from declaration import infra
from declaration.gpu_devices import vendor_of
from declaration.settings import Snapshots
from declaration.topology import DomainPlan, MachinePlan
from host.objects import MARK


def volume(snapshots: Snapshots | None) -> dict[str, Any]:
    """A storage volume; ``snapshots`` where it holds data.

    Their keys are there without a schedule too: an edit leaves alone what it does not name.
    """
    keys: dict[str, str] = {}
    if snapshots:
        expiry = snapshots.expiry if snapshots.schedule else ""
        keys = {"snapshots.schedule": snapshots.schedule, "snapshots.expiry": expiry}
    return {"description": "incus-stt", "config": {**keys, **MARK}}


def project(plan: DomainPlan) -> dict[str, Any]:
    """The project: images and networks are Incus' own, the rest is apart from other projects."""
    return {
        "description": plan.domain.description or f"incus-stt: {plan.domain.trust_level}",
        "config": {
            "features.images": "false",
            "features.networks": "false",
            "features.profiles": "true",
            "features.storage.buckets": "true",
            "features.storage.volumes": "true",
            **MARK,
        },
    }


def network(plan: DomainPlan) -> dict[str, Any]:
    """The bridge: the host has .254, Incus' own DNS and DHCP, NAT to the outside."""
    return {
        "type": "bridge",
        "description": f"incus-stt: bridge of {plan.name}",
        "config": {
            "ipv4.address": f"{plan.gateway}/{plan.subnet.prefixlen}",
            "ipv4.dhcp.ranges": plan.dhcp_range,
            "ipv4.nat": "true",
            "ipv6.address": "none",
            **MARK,
        },
    }


def default_profile(bridge: str, pool: str) -> dict[str, Any]:
    """The profile ``default`` of a domain's project."""
    return {
        "description": "incus-stt: disk and network",
        "config": dict(MARK),
        "devices": {
            "eth0": {"type": "nic", "network": bridge, "name": "eth0"},
            "root": {"type": "disk", "pool": pool, "path": "/"},
        },
    }


def profile(declared: infra.Profile) -> dict[str, Any]:
    """A profile as declared; one with a GPU gets a device that every service may use.

    Services run as their own users, and a GPU device is root's only (0660) unless ``mode`` or
    ``gid`` say otherwise. With NVIDIA's, ``nvidia.runtime`` brings the host's driver libraries into
    the container; with AMD's, ROCm needs /dev/kfd beside what Incus brings.
    """
    config = dict(declared.config)
    devices = {name: dict(device) for name, device in declared.devices.items()}
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
        "description": declared.description or "incus-stt",
        "config": {**config, **MARK},
        "devices": devices,
    }


def instance(
    plan: MachinePlan,
    volumes: Mapping[str, str],
    devices: Mapping[str, Mapping[str, str]],
    bridge: str,
    pool: str,
) -> dict[str, Any]:
    """The container; ``volumes`` maps each storage volume to where it is mounted."""
    disks = {
        name: {"type": "disk", "pool": pool, "source": name, "path": path}
        for name, path in volumes.items()
    }
    return {
        "description": plan.machine.description,
        "profiles": plan.machine.profiles,
        "config": {"boot.autostart": "true", **plan.machine.config, **MARK},
        "devices": {
            "eth0": {
                "type": "nic",
                "network": bridge,
                "name": "eth0",
                "ipv4.address": str(plan.address),
            },
            **disks,
            **devices,
            **plan.machine.devices,
        },
    }
