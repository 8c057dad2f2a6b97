"""docs/changes.md says what a change of every setting does; here is the proof."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from declaration.infra import Domain, Machine
from declaration.stack_file import SECRETS
from tests.e2e.project import ROOT
from tests.unit.program import KEYS, Program, run
from tests.unit.test_settings import SCHEMA

TABLE = ROOT / "docs" / "changes.md"
MACHINE = "ai-tools/gpu-server"
#: What changes what a machine is, and what only changes what is in it.
REPLACES = "replace"


def rows() -> list[list[str]]:
    """The table's rows: setting, example, what is touched, effect."""
    lines = [line for line in TABLE.read_text().splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def code(cell: str) -> str:
    return cell.strip("`")


def topology() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "infra.cpu.yml").read_text())
    loaded["domains"]["ai-tools"]["profiles"] = {
        "more": {},
        "card": {"devices": {"gpu": {"type": "gpu"}}},
    }
    return loaded


def program(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, setting: str = "", value: Any = None
) -> Program:
    """The stack ``cpu`` with one setting, or one key of the topology, changed."""
    infra = topology()
    settings: dict[str, Any] = {}
    domain = infra["domains"]["ai-tools"]
    kind, _, name = setting.partition(":")
    if kind == "stt":
        top, _, inner = name.partition(".")
        settings[top] = {inner: value} if inner else value
    elif kind == "machine" and name == "name":
        domain["machines"]["box"] = domain["machines"].pop("gpu-server") | {
            "formerly": "gpu-server"
        }
        domain["machines"] = dict(reversed(domain["machines"].items()))
    elif kind == "domain" and name == "name":
        infra["domains"] = {"lab": {**domain, "formerly": "ai-tools"}}
    elif setting == "machine:gpu":
        domain["machines"]["gpu-server"] |= {"gpu": value, "profiles": ["default", "card"]}
    elif kind == "machine":
        domain["machines"]["gpu-server"][name] = value
    elif kind == "domain":
        domain[name] = value
    (tmp_path / "infra.yml").write_text(yaml.safe_dump(infra, sort_keys=False))
    settings.setdefault("infra", str(tmp_path / "infra.yml"))
    if setting.removeprefix("stt:") in SECRETS:
        return run(monkeypatch, "cpu", secret=True, **settings)
    return run(monkeypatch, "cpu", **settings)


def touched(before: Program, after: Program) -> dict[str, str]:
    """What is done to each Command that a change reaches, by its name before."""
    done: dict[str, str] = {}
    seen = set()
    for name, command in after.commands.items():
        aliases = [alias.spec.name for alias in command.request.aliases]
        former = next((each for each in [name, *aliases] if each in before.commands), None)
        if former is None:
            done[name] = "create"
            continue
        seen.add(former)
        old = before.commands[former].inputs
        if command.inputs["triggers"] != old["triggers"]:
            done[former] = REPLACES
        elif command.inputs != old:
            done[former] = "update"
    # What holds the id of something that is replaced is replaced with it.
    for name, command in after.commands.items():
        owners = command.request.propertyDependencies["triggers"].urns
        if any(done.get(urn.split("::")[-1]) == REPLACES for urn in owners) and name in done:
            done[name] = REPLACES
    return done | {name: "delete" for name in before.commands if name not in seen}


def short(name: str) -> str:
    """A Command's name in the table."""
    name = name.removeprefix("ai-tools/")
    for part, word in (
        ("gpu-server/stt_server/", "stt "),
        ("gpu-server/ollama_server/", "ollama "),
        ("webui/open_webui/", "webui "),
    ):
        name = name.replace(part, word)
    return name


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_a_change_touches_what_the_table_says(
    row: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    setting, value, cell, effect = code(row[0]), code(row[1]), row[2], row[3]
    example = tmp_path / "ca.pem"
    example.write_text("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n")
    value = value.replace("ca.pem", str(example))
    before = program(monkeypatch, tmp_path)
    after = program(monkeypatch, tmp_path, setting, yaml.safe_load(value) if value else None)
    done = touched(before, after)
    expected = set(re.findall(r"`([^`]+)`", cell))
    found = {short(name) for name in done}
    if expected == {"all"}:
        expected = {short(name) for name in before.commands} - KEYS
        found -= KEYS
    assert found == expected
    replaced = {name for name, kind in done.items() if kind == REPLACES}
    for name in done:
        if "/volume/" in name and done[name] in (REPLACES, "delete"):
            assert before.commands[name].inputs["delete"] == ":"  # nothing is lost
    containers = {name for name in replaced if name.endswith("/instance")}
    assert bool(containers) == ("replace" in effect), effect


def test_every_setting_is_in_the_table() -> None:
    named = {code(row[0]) for row in rows()}
    for key in SCHEMA:
        inner = {name for name in named if name.startswith(f"{key}.")}
        assert key in named or inner, key
    for model, prefix in ((Machine, "machine"), (Domain, "domain")):
        for field in set(model.model_fields) - {"formerly", "machines", "type"}:
            assert f"{prefix}:{field}" in named, field


def test_no_setting_of_a_service_replaces_a_machine() -> None:
    service = "enabled engine model quantization language host port apiKey adminPassword".split()
    for row in rows():
        setting = code(row[0]).removeprefix("stt:").split(".")[0]
        if setting in (*service, "ollama", "webui", "sources", "caBundle"):
            assert "replace" not in row[3], row
