"""The topologies of docs/scale.md, "Three sizes": tests use what the page shows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

PAGE = Path(__file__).parents[1] / "docs" / "scale.md"
_SECTION = re.compile(r"^## Three sizes\n(.*?)^## ", re.DOTALL | re.MULTILINE)
_BLOCK = re.compile(r"^```yaml\n(.*?)^```", re.DOTALL | re.MULTILINE)


def sizes() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any]]:
    """One card, several cards and a cluster as infra.yml has them; the stack file of the last."""
    section = _SECTION.search(PAGE.read_text())
    assert section, f"{PAGE} has no section of the three sizes"
    one, several, cluster, stack_file = map(yaml.safe_load, _BLOCK.findall(section[1]))
    return one, several, cluster, stack_file["config"]


def without_cards(machine: dict[str, Any]) -> dict[str, Any]:
    """A machine of theirs on a host without cards."""
    return {key: value for key, value in machine.items() if key not in ("gpu", "profiles")}
