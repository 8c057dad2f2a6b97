"""docs/changes.md says what a change of every setting does; here is the proof."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from declaration.describe import describe
from declaration.infra import Domain, Machine
from declaration.settings import Settings
from declaration.stack_file import SECRETS
from tests.unit.cluster import CLUSTER, cluster_after
from tests.unit.program import EMPTY_HOST, KEPT, Program, host_after, run
from tests.unit.values import NOT_OF_UP, PEM, STACKS, change_rows, code

#: Settings that are refused where others are not set with them: there is no change of one only.
TOGETHER = {
    *("custom.install", "custom.unit", "custom.files"),
    *("webui.certificate", "webui.certificateKey"),
    *("gateway.certificate", "gateway.certificateKey"),
}
#: What the table calls a role's steps.
SHORT = {
    "gpu-server/stt_server": "stt",
    "gpu-server/ollama_server": "ollama",
    "webui/open_webui": "webui",
    "webui/webui_proxy": "proxy",
}


def topology() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((STACKS / "infra.cpu.yml").read_text())
    loaded["domains"]["ai-tools"]["profiles"] = {
        "more": {},
        "card": {"devices": {"gpu": {"type": "gpu"}}},
    }
    return loaded


@pytest.fixture(scope="session")
def before(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """The stack ``cpu``, applied once."""
    return program(tmp_path_factory.mktemp("before"))


def program(
    tmp_path: Path,
    setting: str = "",
    value: Any = None,
    before: Program | None = None,
    cluster: bool = False,
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
        box = domain["machines"].pop("gpu-server") | {"formerly": "gpu-server"}
        domain["machines"] = {"box": box, **domain["machines"]}
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
    secret = setting.removeprefix("stt:") in SECRETS
    if before is None:
        return run("cpu", CLUSTER if cluster else EMPTY_HOST, secret=secret, **settings)
    live = cluster_after(before) if cluster else host_after(before)
    return run("cpu", live, before, secret=secret, late=live.machines, **settings)


def short(name: str) -> str:
    """A resource's name in the table."""
    name = name.removeprefix("ai-tools/").removeprefix("lab/")
    for part, word in SHORT.items():
        if name.startswith(f"{part}/"):
            return name.replace(f"{part}/", f"{word} ")
    return name


def summary(touched: set[str], every: set[str]) -> set[str]:
    """The names as the table has them: a machine or a role where all of it is touched."""
    if every - set(KEPT) <= touched:
        return {"all"}
    left, found = set(touched), set()
    machines = [f"ai-tools/{name}" for name in ("gpu-server", "webui")]
    roles = {f"ai-tools/{part}": word for part, word in SHORT.items()}
    for group, word in [*((each, short(each)) for each in machines), *roles.items()]:
        members = {name for name in every | touched if name.startswith(f"{group}/")}
        if members and members <= left:
            found.add(word)
            left -= members
    return found | {short(name) for name in left}


@pytest.mark.sweep
@pytest.mark.parametrize("row", change_rows(), ids=lambda row: row[0])
def test_a_change_touches_what_the_table_says(
    row: list[str], before: Program, tmp_path: Path
) -> None:
    setting, value, cell, effect = code(row[0]), code(row[1]), row[2], row[3]
    example = tmp_path / "ca.pem"
    example.write_text(PEM)
    value = value.replace("ca.pem", str(example))
    cluster = setting.endswith(":member")  # any other host refuses it
    before = program(tmp_path, setting, "node1", cluster=True) if cluster else before
    after = program(tmp_path, setting, yaml.safe_load(value) if value else None, before, cluster)
    changes = after.changes(before)
    assert summary(set(changes), set(before.commands)) == set(re.findall(r"`([^`]+)`", cell))
    assert after.drift == {}  # a change of the configuration is not drift
    if setting.startswith("stt:") and setting not in NOT_OF_UP:
        assert after.acts(before) != after.calls_idle(setting)
    for name, kind in changes.items():
        if "/volume/" in name and kind in ("replace", "delete"):
            assert "delete" not in before.commands[name].inputs  # nothing is lost
    containers = {n for n, kind in changes.items() if n.endswith("/instance") and kind == "replace"}
    assert bool(containers) == ("replaced" in effect), effect
    services = {name for name in changes if name.endswith("/service")}
    quiet = effect.startswith(("in place", "nothing")) and "restart" not in effect
    assert not (quiet and services), effect


def test_every_setting_is_in_the_table() -> None:
    named = {code(row[0]) for row in change_rows()}
    for each in describe(Settings):
        if not each.group and each.key not in TOGETHER:
            assert f"stt:{each.key}" in named, f"{each.key}: add a row to docs/changes.md"
    for model, prefix in ((Machine, "machine"), (Domain, "domain")):
        for field in set(model.model_fields) - {"formerly", "machines", "type"}:
            assert f"{prefix}:{field}" in named, field


def test_no_setting_of_a_service_replaces_a_machine() -> None:
    service = "enabled engine model quantization language host port apiKey adminPassword".split()
    for row in change_rows():
        setting = code(row[0]).removeprefix("stt:").split(".")[0]
        if setting in (*service, "keepAlive", "ollama", "webui", "sources", "caBundle"):
            assert "replaced" not in row[3], row
