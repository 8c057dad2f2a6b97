"""Devices of the topology that have the name of one that the program makes. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from declaration.problems import Problem
from declaration.settings import Settings
from declaration.topology import MachinePlan, Topology
from stack.checks import WEBUI_ROLE
from stack.listening import place_of
from stack.role_rules import RoleRules


def device_name_problems(
    settings: Settings, topology: Topology, roles: Mapping[str, RoleRules], file: str
) -> list[Problem]:
    """Of two devices with one name only one would be there: a machine could lose its volume.

    ``topology`` has the links between members, and not yet their devices.
    """
    problems = [
        Problem(
            f"{file}: {place_of(topology, machine, name)}",
            f"is the name of the device that the program makes in {machine.name} for {what}. Give "
            "your device another name.",
        )
        for machine in topology.machines
        for name, what in _made(machine, settings, topology, roles).items()
        if name in topology.devices_of(machine)
    ]
    return list(dict.fromkeys(problems))  # machines of one count have the same


def _made(
    machine: MachinePlan, settings: Settings, topology: Topology, roles: Mapping[str, RoleRules]
) -> dict[str, str]:
    """What each of the program's devices is for, by its name."""
    # The machine's own device of that name is refused with the topology.
    made = {} if "eth0" in machine.machine.devices else {"eth0": "its network"}
    if machine.machine.disk and "root" not in machine.machine.devices:
        made["root"] = f"its disk ({machine.machine.disk})"
    for role in machine.roles:
        for name, path in {**roles[role].volumes, **roles[role].caches}.items():
            made[name] = f"the volume {name} at {path}"
    if WEBUI_ROLE in machine.roles and settings.webui.publish:
        made["publish"] = f"stt:webui.publish ({settings.webui.publish})"
    for link in topology.links_to(machine):
        made[link.device] = f"other members ({link.address}:{link.port})"
    return made
