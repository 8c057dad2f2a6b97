"""The topologies of docs/scale.md, "Three sizes": tests use what the page shows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

PAGE = Path(__file__).parents[1] / "docs" / "scale.md"
_SECTION = re.compile(r"^## Three sizes\n(.*?)^## ", re.DOTALL | re.MULTILINE)
_BLOCK = re.compile(r"^```yaml\n(.*?)^```", re.DOTALL | re.MULTILINE)


def sizes() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """One card, several cards and a cluster, as infra.yml has them."""
    section = _SECTION.search(PAGE.read_text())
    assert section, f"{PAGE} has no section of the three sizes"
    one, several, cluster = map(yaml.safe_load, _BLOCK.findall(section[1]))
    return one, several, cluster


def as_two_domains() -> tuple[dict[str, Any], list[str]]:
    """The cluster with a domain for each member, and what ``stt:gateway.servers`` has then."""
    _, _, topology = sizes()
    domain = topology["domains"]["ai-tools"]
    machines, server = domain["machines"], "192.168.1.12:8000"
    more = {"stt": {**machines.pop("stt-more"), "devices": {}}}
    lan = {"type": "proxy", "listen": f"tcp:{server}", "connect": "tcp:127.0.0.1:8000"}
    more["stt"]["devices"]["lan"] = lan
    topology["domains"]["ai-more"] = {**domain, "member": "node2", "machines": more}
    return topology, [f"http://{server}"]


def without_cards(machine: dict[str, Any]) -> dict[str, Any]:
    """A machine of theirs on a host without cards."""
    return {key: value for key, value in machine.items() if key not in ("gpu", "profiles")}
