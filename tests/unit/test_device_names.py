"""Devices of the topology do not take the place of those that the program makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from declaration.problems import DeclarationError
from roles import ROLES
from stack.declare import declare
from tests.unit.values import CPU

PROXY = {"type": "proxy", "listen": "tcp:0.0.0.0:8099", "connect": "tcp:127.0.0.1:3000"}
BOTH = ["base_system", "ollama_server", "stt_server", "open_webui"]


def problems(
    root: Path, machine: dict[str, Any], profile: dict[str, Any] | None = None, **settings: Any
) -> list[str]:
    """What is wrong with a machine, and with a profile that it has."""
    domain: dict[str, Any] = {
        "trust_level": "trusted",
        "machines": {"box": {"profiles": ["default"], **machine}},
    }
    if profile is not None:
        domain["profiles"] = {"more": profile}
        domain["machines"]["box"]["profiles"] = ["default", "more"]
    (root / "infra.yml").write_text(yaml.safe_dump({"domains": {"lab": domain}}))
    try:
        declare({**CPU, **settings, "infra": "infra.yml"}, ROLES, root)
    except DeclarationError as error:
        return [str(problem) for problem in error.problems]
    return []


def made_by_roles() -> list[tuple[str, str]]:
    """Every role with each name of a volume or a cache of its."""
    return [
        (role, name)
        for role, each in sorted(ROLES.items())
        for name in sorted({*each.volumes, *each.caches})
    ]


@pytest.mark.parametrize(("role", "name"), made_by_roles())
def test_no_device_takes_the_place_of_a_volume(role: str, name: str, tmp_path: Path) -> None:
    """The data would be out of the machine, and its service would begin anew."""
    roles = {"roles": BOTH if role != "stt_gateway" else ["base_system", "stt_server", role]}
    settings: dict[str, Any] = {"gateway": {"port": 8090}} if role == "stt_gateway" else {}
    assert problems(tmp_path, roles, **settings) == []
    found = problems(tmp_path, {**roles, "devices": {name: PROXY}}, **settings)
    assert any(f"devices.{name}" in each and f"the volume {name} at" in each for each in found)
    assert problems(tmp_path, roles, {"devices": {name: PROXY}}, **settings), "of a profile"


def test_no_device_takes_the_place_of_stt_webui_publish(tmp_path: Path) -> None:
    machine = {"roles": BOTH, "devices": {"publish": PROXY}}
    [found] = problems(tmp_path, machine, webui={"publish": "127.0.0.1:3333"})
    assert "machines.box.devices.publish" in found and "stt:webui.publish (127.0.0.1:3333)" in found
    assert problems(tmp_path, machine, webui={"publish": ""}) == []


def test_a_profile_has_no_network_of_its_own(tmp_path: Path) -> None:
    nic = {"devices": {"eth0": {"type": "nic", "network": "other"}}}
    [found] = problems(tmp_path, {"roles": ["base_system"]}, nic, enabled=False)
    assert "profiles.more.devices.eth0" in found and "Give your device another name" in found


def test_a_profile_s_disk_is_not_lost_for_the_machine_s(tmp_path: Path) -> None:
    machine, root = {"roles": ["base_system"]}, {"devices": {"root": {"type": "disk", "path": "/"}}}
    assert problems(tmp_path, machine, root, enabled=False) == []
    [found] = problems(tmp_path, {**machine, "disk": "20GiB"}, root, enabled=False)
    assert "profiles.more.devices.root" in found and "its disk (20GiB)" in found


def test_machines_of_one_count_are_named_once(tmp_path: Path) -> None:
    machine = {"roles": ["base_system", "stt_server"], "count": 3, "devices": {"models": PROXY}}
    found = [each for each in problems(tmp_path, machine) if "devices.models" in each]
    assert len(found) == len(set(found)) and found
