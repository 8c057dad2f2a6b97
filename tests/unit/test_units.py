"""What the units of this program give up, as systemd itself weighs it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.kinds.files import Files
from agent.kinds.service import Service
from agent.systemd import unit_text
from engines import ENGINES
from engines.whisper_models import WHISPER_MODELS
from stack.declare import Declaration
from tests.unit.program import steps_of
from tests.unit.values import declared, own

#: The most that `systemd-analyze security` may say.
MOST = 1.5
ON_CARD = [name for name in ENGINES if name != "custom" and "cuda" in ENGINES[name].compute_types]


def with_engine(engine: str, infra: str = "infra.cpu.yml", **settings: Any) -> Declaration:
    """A stack whose compute type is chosen."""
    values = {"model": "", "quantization": "auto", **settings}
    declaration = declared(engine=engine, infra=own(infra), **values)
    types = declaration.engine.compute_types
    return declaration.with_compute_types([types[each.device][0] for each in declaration.services])


def units(declaration: Declaration) -> dict[str, str]:
    """The text of every unit by name."""
    found: dict[str, str] = {}
    for step in steps_of(declaration).values():
        if isinstance(step.spec, Service):
            found[step.spec.unit] = step.spec.unit_text or unit_text(step.spec.sections)
        elif isinstance(step.spec, Files):
            found |= {
                Path(file.path).stem: file.content
                for file in step.spec.files
                if file.path.endswith(".service")
            }
    return found


def exposure(text: str, directory: Path) -> float:
    """What `systemd-analyze security` says of a unit; the less, the better."""
    file = directory / "tested.service"
    file.write_text(text)
    said = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(file)],
        capture_output=True,
        text=True,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    ).stdout
    found = re.search(r"exposure level for tested.service: ([\d.]+)", said)
    assert found, said
    return float(found[1])


needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


@needs_systemd
@pytest.mark.parametrize("engine", [name for name in ENGINES if name != "custom"])
def test_units_give_up_what_they_can(engine: str, tmp_path: Path) -> None:
    found = units(with_engine(engine, webui={"tls": "internal"}))
    assert {engine, "speaches", "ollama", "open-webui", "webui-proxy"} == set(found)
    scores = {name: exposure(text, tmp_path) for name, text in found.items()}
    assert max(scores.values()) <= MOST, scores


def with_gateway(directory: Path, **settings: Any) -> Declaration:
    """An STT server with a gateway beside it."""
    roles = ["base_system", "stt_server", "stt_gateway"]
    lab = {"trust_level": "trusted", "machines": {"box": {"roles": roles}}}
    infra = directory / "infra.yml"
    infra.write_text(yaml.safe_dump({"domains": {"lab": lab}}))
    return declared(infra=str(infra), **settings).with_compute_types(["int8"])


@needs_systemd
def test_units_of_a_gateway_give_up_what_they_can(tmp_path: Path) -> None:
    found = units(with_gateway(tmp_path, gateway={"port": 8001}))
    for name in ("stt-gateway", "stt-gateway-watcher"):
        assert exposure(found[name], tmp_path) <= MOST, name


def capabilities(declaration: Declaration) -> dict[str, str]:
    """What each unit may do as root could, where there is anything; each says what is left."""
    left = {
        name: re.findall(r"^(?:AmbientCapabilities|CapabilityBoundingSet)=(.*)$", text, re.M)
        for name, text in units(declaration).items()
    }
    assert all(left.values()), "without a word a unit has all of them"
    return {name: " ".join(dict.fromkeys(found)) for name, found in left.items() if any(found)}


@pytest.mark.parametrize("engine", [name for name in ENGINES if name != "custom"])
def test_the_units_with_a_capability_are_known(engine: str) -> None:
    """docs/security.md names them."""
    assert capabilities(with_engine(engine)) == {}
    proxy = {"webui-proxy": "CAP_NET_BIND_SERVICE"}
    assert capabilities(with_engine(engine, webui={"tls": "internal"})) == proxy


def test_a_port_below_1024_brings_a_capability() -> None:
    low = with_engine("vosk", port=80, ollama={"port": 81}, webui={"port": 82})
    names = ("vosk", "ollama", "open-webui")
    assert capabilities(low) == dict.fromkeys(names, "CAP_NET_BIND_SERVICE")


@pytest.mark.parametrize("port", [8001, 443])
def test_the_gateway_s_watcher_has_a_capability(port: int, tmp_path: Path) -> None:
    nginx = {"stt-gateway": "CAP_NET_BIND_SERVICE"} if port == 443 else {}
    found = capabilities(with_gateway(tmp_path, gateway={"port": port}))
    assert found == {"stt-gateway-watcher": "CAP_NET_ADMIN", **nginx}


@pytest.mark.parametrize("engine", [name for name in ENGINES if name != "custom"])
def test_a_service_requires_the_socket_that_holds_its_port(engine: str) -> None:
    specs = [step.spec for step in steps_of(with_engine(engine)).values()]
    services = [each for each in specs if isinstance(each, Service)]
    held = {engine} if ENGINES[engine].holds_port else set()
    assert {each.unit for each in services if each.socket} == held
    for each in services:
        required = each.sections["Unit"].get("Requires")
        assert required == (f"{each.socket}.socket" if each.socket else None)


@needs_systemd
@pytest.mark.parametrize("engine", ON_CARD)
def test_units_with_a_card_give_up_the_rest(engine: str, tmp_path: Path) -> None:
    found = units(with_engine(engine, "infra.yml"))
    for name in {engine, "ollama"}:
        assert exposure(found[name], tmp_path) <= MOST, name


@pytest.mark.parametrize("engine", ON_CARD)
def test_a_card_stays_open_where_there_is_one(engine: str) -> None:
    """Each of these closes its devices, or refuses what a driver does with memory."""
    closing = ("PrivateDevices", "PrivateUsers")
    found = units(with_engine(engine, "infra.yml"))
    for name in (engine, "ollama"):
        for directive in closing:
            assert f"\n{directive}=" not in found[name], (name, directive)
        assert "\nDevicePolicy=closed\nDeviceAllow=char-nvidia* rw\n" in found[name]
        assert "@resources" not in found[name] and "MemoryMax=" not in found[name]
    for name in (engine, "ollama"):
        assert "\nPrivateDevices=yes\n" in units(with_engine(engine))[name]


@pytest.mark.parametrize("model", ["tiny", "base", "small", "medium", "large-v3-turbo"])
def test_memory_ends_where_it_is_known(model: str) -> None:
    text = units(with_engine("faster-whisper", model=model))["faster-whisper"]
    found = re.search(r"\nMemoryMax=(\d+)M\n", text)
    if model in ("tiny", "base", "small"):
        measured = max(figure.mib for figure in WHISPER_MODELS[model].cpu.values())
        assert found and int(found[1]) > measured + 1024
    else:
        assert not found, "the figure is derived: it may end a service that works"


@pytest.mark.parametrize("engine", ["parakeet", "vosk", "owhisper", "speaches"])
def test_memory_has_no_end_where_nobody_measured(engine: str) -> None:
    assert "MemoryMax=" not in "".join(units(with_engine(engine)).values())


def test_a_service_has_descriptors_for_a_crowd() -> None:
    for name, text in units(with_engine("faster-whisper")).items():
        assert name == "speaches" or "\nLimitNOFILE=65536\n" in text, name
