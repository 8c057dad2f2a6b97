"""The desired state of a domain's Incus objects, as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from declaration import infra
from declaration.gpu_devices import vendor_of
from declaration.idmap import ISOLATED
from declaration.memory import LIMIT
from declaration.policy import Flow
from declaration.settings import Snapshots
from declaration.topology import DomainPlan, MachinePlan
from host.egress import CLOSED_DNS
from host.objects import AI_SUFFIX, MARK, SHIFTED
from stack.flows import Border


def volume(snapshots: Snapshots | None, shifted: bool = False) -> dict[str, Any]:
    """A storage volume; ``snapshots`` where it holds data.

    Their keys are there without a schedule too: an edit leaves alone what it does not name.
    ``shifted``: Incus translates its owners for each machine, whose users on the host differ.
    """
    keys = {SHIFTED: "true"} if shifted else {}
    if snapshots:
        expiry = snapshots.expiry if snapshots.schedule else ""
        keys |= {"snapshots.schedule": snapshots.schedule, "snapshots.expiry": expiry}
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


def acl(plan: DomainPlan, border: Border) -> dict[str, Any]:
    """The ACL of the bridge: what its machines may open, and what may be opened to them."""
    return _acl(f"border of {plan.name}", border.egress, border.ingress)


def install_acl(plan: DomainPlan, border: Border) -> dict[str, Any]:
    """The ACL that the bridge has besides, while `up` installs something."""
    return _acl(f"what {plan.name} installs from", border.install, ())


def ai_acl(plan: DomainPlan, border: Border) -> dict[str, Any]:
    """The ACL that the bridge has besides, where other domains take turns at its AI services."""
    now = [flow for flow in border.ai if not flow.held]
    return _acl(f"who has the AI access to {plan.name}", (), now)


def _acl(what: str, egress: Sequence[Flow], ingress: Sequence[Flow]) -> dict[str, Any]:
    return {
        "description": f"incus-stt: {what}",
        "egress": [_rule(flow) for flow in egress],
        "ingress": [_rule(flow) for flow in ingress],
        "config": dict(MARK),
    }


def _rule(flow: Flow) -> dict[str, str]:
    rule = {
        "action": "allow",
        "source": ",".join(flow.sources),
        "destination": ",".join(flow.destinations),
        "description": flow.why,
        "state": "enabled",
    }
    if flow.ports:
        rule |= {"protocol": flow.protocol, "destination_port": ",".join(map(str, flow.ports))}
    return rule


def network(plan: DomainPlan, border: Border) -> dict[str, Any]:
    """The bridge: the host has .254, Incus' own DNS and DHCP, NAT to the outside.

    What its ACLs do not allow is dropped.
    """
    acls = [plan.bridge, *([f"{plan.bridge}{AI_SUFFIX}"] if border.ai else [])]
    return {
        "type": "bridge",
        "description": f"incus-stt: bridge of {plan.name}",
        "config": {
            "ipv4.address": f"{plan.gateway}/{plan.subnet.prefixlen}",
            "ipv4.dhcp.ranges": plan.dhcp_range,
            "ipv4.nat": "true",
            "ipv6.address": "none",
            "security.acls": ",".join(acls),
            "security.acls.default.egress.action": "drop",
            "security.acls.default.ingress.action": "drop",
            **({} if plan.domain.egress == "open" else {"raw.dnsmasq": CLOSED_DNS}),
            **MARK,
        },
    }


def root(pool: str) -> dict[str, str]:
    """The device of a root disk."""
    return {"type": "disk", "pool": pool, "path": "/"}


def default_profile(bridge: str, pool: str) -> dict[str, Any]:
    """The profile ``default`` of a domain's project."""
    return {
        "description": "incus-stt: disk and network",
        "config": dict(MARK),
        "devices": {
            "eth0": {"type": "nic", "network": bridge, "name": "eth0"},
            "root": root(pool),
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
    member: str = "",
) -> dict[str, Any]:
    """The container; ``volumes`` maps each storage volume to where it is mounted.

    ``member`` is where in a cluster it is.
    What a profile says of its users on the host is said here too: a change takes a restart. So is
    what it says of memory, where the machine has a limit without a word.
    """
    disks = {
        name: {"type": "disk", "pool": pool, "source": name, "path": path}
        for name, path in volumes.items()
    }
    return {
        **({"member": member} if member else {}),
        "description": plan.machine.description,
        "profiles": plan.machine.profiles,
        "config": {
            "boot.autostart": "true",
            ISOLATED: str(plan.isolated).lower(),
            LIMIT: plan.memory,
            **plan.machine.config,
            **MARK,
        },
        "devices": {
            "eth0": {
                "type": "nic",
                "network": bridge,
                "name": "eth0",
                "ipv4.address": str(plan.address),
                # No machine sends what looks like another one's.
                "security.ipv4_filtering": "true",
                "security.mac_filtering": "true",
            },
            **({"root": {**root(pool), "size": size}} if (size := plan.machine.disk) else {}),
            **disks,
            **devices,
            **plan.machine.devices,
        },
    }
