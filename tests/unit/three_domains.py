"""A topology in which two domains may take turns at the AI access to a third one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

HOME = {"from": "home", "to": "ai/gpu-server", "ports": [8000]}
WORK = {"from": "work", "to": "ai", "ports": [8000, 11434], "description": "desks"}


def topology(
    tmp_path: Path,
    *policy: dict[str, Any],
    access: str = "exclusive",
    default: str = "home",
    server: dict[str, Any] | None = None,
    **more: Any,
) -> str:
    """The file of a topology with three domains; ``server`` are keys of the AI machine."""
    roles = ["base_system", "stt_server", "ollama_server"]
    machines: dict[str, dict[str, Any]] = {
        "ai": {"gpu-server": {"roles": roles, **(server or {})}, "webui": {"roles": []}},
        "home": {"tablet": {"roles": ["base_system"]}},
        "work": {"desk": {}, "laptop": {}},
    }
    levels = {"ai": "trusted", "home": "semi-trusted", "work": "untrusted"}
    domains = {
        name: {"trust_level": levels[name], "machines": each} for name, each in machines.items()
    }
    settings = {"ai_access": access, "environments": ["production", "staging"]}
    settings |= {"ai_access_default": default} if default else {}
    file = tmp_path / "infra.yml"
    data = {"global": settings, "policy": policy or (HOME, WORK), "domains": {**domains, **more}}
    file.write_text(yaml.safe_dump(data))
    return str(file)
