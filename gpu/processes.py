"""What runs on the host's cards now, beside this stack's own services. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection

from declaration.gpu_devices import pci_of
from gpu.cards import Holder

#: The unit of a service within a container, at the end of a process' cgroup.
CGROUP = re.compile(r"lxc\.payload\.(?P<instance>[^/]+)/.*?(?P<unit>[\w@.-]+)\.service")


def holders(said: str, own: Collection[tuple[str, str]]) -> dict[str, list[Holder]]:
    """Who holds memory of each card, by its PCI address.

    ``said`` has a line for each process: PCI address, process id, MiB, and its cgroup. ``own`` are
    services by their container and unit; these are planned for, and so left out. A container of a
    project is ``PROJECT_NAME`` in a cgroup.
    """
    found: dict[str, dict[str, int]] = {}
    for line in said.splitlines():
        parts = [part.strip() for part in line.split(",", 3)]
        if len(parts) != 4 or not parts[2].isdigit():
            continue
        place = CGROUP.search(parts[3])
        if place and (place["instance"], place["unit"]) in own:
            continue
        name = f"{place['instance']}: {place['unit']}" if place else f"process {parts[1]}"
        card = found.setdefault(pci_of(parts[0]), {})
        card[name] = card.get(name, 0) + int(parts[2])
    return {pci: [Holder(*each) for each in card.items()] for pci, card in found.items()}
