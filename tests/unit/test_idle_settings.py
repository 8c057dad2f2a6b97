"""A setting changes something, or the operator is told that it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml

from declaration.describe import describe
from declaration.settings import Settings
from declaration.source_files import ROOT
from declaration.stack_file import SECRETS
from engines import ENGINES
from roles import ROLES
from stack.declare import declare
from stack.idle_settings import RULES, idle_settings
from tests.unit.program import Program, host_after, run
from tests.unit.values import CPU, NOT_OF_UP, PEM, certificate, changes

BASE, STT, WEBUI, GATEWAY = "base_system", "stt_server", "open_webui", "stt_gateway"
OTHER = "https://stt.example/v1"
ONLY_STT = {"gpu-server": {"roles": [BASE, STT]}}
ONLY_WEBUI = {"gpu-server": {"roles": [BASE, WEBUI]}}
FRONT = {"gpu-server": {"roles": [BASE, GATEWAY]}}
POOL = {**FRONT, "server": {"count": 2, "roles": [BASE, STT]}}
#: Stacks by name: the machines, where they are not those of the stack ``cpu``, and the settings.
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "all": ({}, {}),
    "off": ({}, {"enabled": False}),
    "only STT": (ONLY_STT, {}),
    "only STT, off": (ONLY_STT, {"enabled": False}),
    "only Open WebUI": (ONLY_WEBUI, {"webui": {"stt_url": OTHER}}),
    "pool": (POOL, {}),
    "pool, off": (POOL, {"enabled": False}),
    "only a gateway": (
        FRONT,
        {"gateway": {"servers": ["http://192.168.1.21:8000"]}},
    ),
}
#: What is refused there, as the setting's own problem says.
REFUSED = {("pool", "host"), ("pool, off", "host")}
LIGHT = ROOT / "tests" / "e2e" / "light_engine"
OWN = {"install": str(LIGHT / "install.sh"), "unit": str(LIGHT / "engine.service")}
CUSTOM = {"engine": "custom", "model": "mine", "custom": OWN}
#: Settings that need others: what is set before, and what then; FIRST and THEN are certificates.
FIRST, THEN = "first", "then"
PAIRS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"webui": FIRST}, {"webui": THEN}),
    ({"gateway": FIRST}, {"gateway": THEN}),
    (CUSTOM, {"custom": {"install": THEN}}),
    (CUSTOM, {"custom": {"unit": THEN}}),
    (CUSTOM, {"custom": {"files": str(LIGHT)}}),
    (CUSTOM, {"custom": {"health": "/ready"}}),
    (CUSTOM, {"limits": {"audioMinutes": 90}}),
    (CUSTOM, {"limits": {"waiting": 8}}),
    ({"webui": {"stt_url": OTHER}}, {"webui": {"sttKey": "key-0123456789"}}),
    ({"webui": {"tls": "internal"}}, {"webui": {"names": ["stt.home.arpa"]}}),
    ({"gateway": {"tls": "internal"}}, {"gateway": {"names": ["stt.home.arpa"]}}),
    ({"snapshots": {"schedule": "@daily"}}, {"snapshots": {"expiry": "4w"}}),
    ({"authentication": "none"}, {"apiKey": "key-0123456789"}),
    ({"authentication": "none"}, {"clients": ["phone"]}),
]


def kinds(*names: str) -> list[Any]:
    """The kinds of stacks, those that are not named as ``seldom``."""
    return [pytest.param(kind, marks=[] if kind in names else pytest.mark.seldom) for kind in KINDS]


@pytest.fixture(scope="session")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """The settings of each kind of stack."""
    place = tmp_path_factory.mktemp("kinds")

    @cache
    def settings(kind: str) -> dict[str, Any]:
        machines, more = KINDS[kind]
        if not machines:
            return more
        file = place / f"{kind}.yml"
        domains = {"ai-tools": {"trust_level": "semi-trusted", "machines": machines}}
        environments = {"environments": ["production", "staging", "dev"]}
        file.write_text(yaml.safe_dump({"global": environments, "domains": domains}))
        return {"infra": str(file), **more}

    return settings


@pytest.fixture(scope="session")
def applied(stacks: Callable[[str], dict[str, Any]]) -> Callable[[str], Program]:
    """Each kind of stack, applied once."""
    return cache(lambda kind: run("cpu", **stacks(kind)))


def merged(settings: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Settings with others; of a group those keys are changed that are given."""
    groups = {key: {**settings.get(key, {}), **v} for key, v in more.items() if isinstance(v, dict)}
    return {**settings, **more, **groups}


@pytest.mark.sweep
@pytest.mark.parametrize("kind", kinds("off", "pool"))
@pytest.mark.parametrize(("setting", "value"), changes().items(), ids=list(changes()))
def test_a_setting_changes_something_or_it_is_said(
    kind: str,
    setting: str,
    value: Any,
    stacks: Callable[[str], dict[str, Any]],
    applied: Callable[[str], Program],
    tmp_path: Path,
) -> None:
    """Every setting of docs/changes.md, with its example."""
    if f"stt:{setting}" in NOT_OF_UP:
        return
    if setting == "caBundle":
        value = str(tmp_path / "ca.pem")
        Path(value).write_text(PEM)
    own, before = stacks(kind), applied(kind)
    group, _, key = setting.partition(".")
    if setting == "enabled":
        value = not own.get("enabled", True)
    settings = merged(own, {group: {key: value} if key else value})
    if (kind, setting) in REFUSED:
        with pytest.raises(pulumi.RunError, match=f"stt:{setting}: "):
            run("cpu", host_after(before), before, **settings)
        return
    after = run("cpu", host_after(before), before, secret=setting in SECRETS, **settings)
    assert after.acts(before) != after.calls_idle(f"stt:{setting}")


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Any]:
    """What FIRST and THEN stand for, by the setting that has them."""
    found: dict[tuple[str, str], Any] = {}
    for word in (FIRST, THEN):
        place = tmp_path_factory.mktemp(word)
        own = {**certificate(place), "names": ["stt.test"]}
        found |= {("webui", word): own, ("gateway", word): own}
    for name, path in OWN.items():
        file = place / Path(path).name
        file.write_text(f"{Path(path).read_text()}# another\n")
        found[name, THEN] = str(file)
    return found


def keys_of(settings: dict[str, Any], *names: str) -> Iterator[str]:
    """The paths of the settings, with ``stt:``."""
    for name, value in settings.items():
        inner = value if isinstance(value, dict) else {}
        yield from keys_of(inner, *names, name) if inner else [f"stt:{'.'.join([*names, name])}"]


@pytest.mark.sweep
@pytest.mark.parametrize("kind", kinds("all"))
@pytest.mark.parametrize(("first", "then"), PAIRS, ids=[str(then) for _, then in PAIRS])
def test_settings_that_need_others_change_something_or_it_is_said(
    kind: str,
    first: dict[str, Any],
    then: dict[str, Any],
    stacks: Callable[[str], dict[str, Any]],
    files: dict[tuple[str, str], Any],
) -> None:
    def filled(settings: dict[str, Any]) -> dict[str, Any]:
        return {
            key: filled(value) if isinstance(value, dict) else files.get((key, str(value)), value)
            for key, value in settings.items()
        }

    own = merged(stacks(kind), filled(first))
    before = run("cpu", **own)
    after = run("cpu", host_after(before), before, secret=True, **merged(own, filled(then)))
    changed = set(keys_of(filled(then))) - {"stt:webui.names", "stt:gateway.names"} or set(
        keys_of(then)
    )
    assert {after.calls_idle(each) for each in changed} == {not after.acts(before)}


def told(**settings: Any) -> list[str]:
    values = {**CPU, "model": "", "quantization": "auto", **settings}
    return [str(problem) for problem in idle_settings(declare(values, ROLES, Path()), ROLES)]


@pytest.mark.parametrize("engine", [name for name in ENGINES if name != "custom"])
@pytest.mark.parametrize("source", ["owhisper", "python", "speaches", "vosk", "models"])
def test_a_source_is_of_the_engines_that_take_from_it(engine: str, source: str) -> None:
    found = told(engine=engine, sources={source: "https://mirror.example/x"})
    wanted = f"stt:sources.{source}: has no effect: the engine {engine} takes nothing from there."
    assert found == ([] if source in ENGINES[engine].sources else [wanted])


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_without_limits_says_so(engine: str) -> None:
    light = ROOT / "tests" / "e2e" / "light_engine"
    custom = {"install": str(light / "install.sh"), "unit": str(light / "engine.service")}
    own = {"engine": engine, "model": "mine", "custom": custom} if engine == "custom" else {}
    wanted = f"stt:limits.waiting: has no effect: the engine {engine} has no such limits."
    found = told(**{"engine": engine, "limits": {"waiting": 8}, **own})
    assert found == ([] if ENGINES[engine].limits else [wanted])


def test_the_default_is_never_said() -> None:
    assert told() == []


def test_a_role_that_no_machine_has_makes_its_settings_idle(tmp_path: Path) -> None:
    file = tmp_path / "infra.yml"
    file.write_text(
        "domains: {lab: {trust_level: trusted, machines: {box: {roles: [base_system]}}}}\n"
    )
    others = {"ollama": {"port": 1}, "webui": {"signup": True}}
    found = told(infra=str(file), port=8001, snapshots={"schedule": "@daily"}, **others)
    assert found == [
        "stt:port: has no effect: no machine has the role stt_server.",
        "stt:snapshots.schedule: has no effect: no volume holds data.",
        "stt:ollama.port: has no effect: no machine has the role ollama_server.",
        "stt:webui.signup: has no effect: no machine has the role open_webui.",
    ]


@pytest.mark.parametrize("stt_url", ["https://stt.example.com/v1", None])
def test_a_service_elsewhere_is_tried_by_open_webui(tmp_path: Path, stt_url: str | None) -> None:
    file = tmp_path / "infra.yml"
    machines = "machines: {box: {roles: [base_system, open_webui]}}"
    file.write_text(f"domains: {{lab: {{trust_level: trusted, {machines}}}}}\n")
    check = {"recording": "recordings/hello_world.wav", "words": "hello world"}
    found = told(infra=str(file), language="en", check=check, webui={"stt_url": stt_url})
    names = [] if stt_url else ["check.words"]
    why = "has no effect: no machine has the role stt_server."
    assert sorted(found) == sorted(f"stt:{name}: {why}" for name in names)


def told_of(tmp_path: Path, machines: dict[str, Any], **settings: Any) -> list[str]:
    """What is said of a stack with these machines: the setting, and why it has no effect."""
    file = tmp_path / "infra.yml"
    domains = {"ai-tools": {"trust_level": "semi-trusted", "machines": machines}}
    file.write_text(yaml.safe_dump({"domains": domains}))
    return [line.replace(" has no effect:", "") for line in told(infra=str(file), **settings)]


def test_a_key_for_this_stack_s_own_service_is_idle() -> None:
    said = "stt:webui.sttKey: has no effect: stt:webui.stt_url names no other service."
    for host in ("10.120.0.1", "gpu-server.incus"):
        url = f"http://{host}:8000/v1/"
        assert told(webui={"sttKey": "key-0123456789", "stt_url": url}) == [said]
    assert told(webui={"sttKey": "key-0123456789", "stt_url": OTHER}) == []


def test_certificates_and_volumes_need_a_machine_that_takes_them(tmp_path: Path) -> None:
    pem = tmp_path / "ca.pem"
    pem.write_text(PEM)
    own = {"engine": "custom", "model": "mine", "custom": OWN, "caBundle": str(pem)}
    found = told_of(tmp_path, {"box": {"roles": [STT]}}, **own)
    assert found == ["stt:caBundle: no machine has the role base_system."]
    found = told_of(tmp_path, {"box": {"roles": [BASE]}}, keepModels=False)
    assert found == ["stt:keepModels: there is no volume."]
    assert told(keepModels=False, caBundle=str(pem)) == []


def test_a_gateway_that_is_off_has_no_settings(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"gateway": {"port": 9000}, "limits": {"waiting": 8}}
    off = told_of(tmp_path, POOL, enabled=False, **settings)
    assert off == [
        "stt:limits.waiting: stt:enabled is false.",
        "stt:gateway.port: stt:enabled is false, and stt:gateway.servers is empty.",
    ]
    settings["gateway"]["servers"] = ["http://192.168.1.20:8000"]
    assert told_of(tmp_path, POOL, enabled=False, **settings) == []


@pytest.mark.parametrize(
    ("url", "why"),
    [
        (OTHER, ""),
        ("http://10.120.0.1:8000/v1", "it names a service of this stack, and stt:enabled is false"),
        ("http://gpu-server:8000/v1", "it names a service of this stack, and stt:enabled is false"),
        ("", "Open WebUI has no STT service without it"),
    ],
)
def test_a_service_of_others_stays_while_this_stack_s_is_off(url: str, why: str) -> None:
    found = told(enabled=False, webui={"stt_url": url})
    assert found == ([f"stt:webui.stt_url: has no effect: {why}."] if why else [])


def test_no_service_where_there_is_none_is_idle(tmp_path: Path) -> None:
    found = told_of(tmp_path, ONLY_WEBUI, webui={"stt_url": "", "ollama_url": ""})
    assert found == [
        "stt:webui.ollama_url: Open WebUI has no Ollama without it.",
        "stt:webui.stt_url: Open WebUI has no STT service without it.",
    ]


def test_a_model_directory_needs_no_hub() -> None:
    found = told(model="./models/tiny-digits", sources={"models": "https://mirror.example"})
    assert found == ["stt:sources.models: has no effect: stt:model is a directory."]


def test_the_rules_are_of_settings_that_exist() -> None:
    assert set(RULES) <= {each.key for each in describe(Settings)}
