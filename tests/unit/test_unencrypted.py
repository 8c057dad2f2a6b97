"""What goes to other hosts in the clear: said, unless the operator trusts the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.program import run

MACHINES = {
    "stt": {"roles": ["base_system", "stt_server"]},
    "gateway": {"roles": ["base_system", "stt_gateway"]},
    "webui": {"roles": ["base_system", "open_webui"]},
}


def said(
    tmp_path: Path,
    machines: dict[str, Any],
    trusted: list[str],
    more: dict[str, Any] | None = None,
    **settings: Any,
) -> str:
    """The log of a preview, from the first word about encryption; ``more``: of another domain."""
    domains = {"lab": machines, **({"more": more} if more else {})}
    topology = {
        "global": {"trusted_networks": trusted},
        "domains": {
            name: {"trust_level": "semi-trusted", "machines": each}
            for name, each in domains.items()
        },
    }
    file = tmp_path / "infra.yml"
    file.write_text(yaml.safe_dump(topology))
    log = run("cpu", infra=str(file), **settings).log
    return "\n".join(line for line in log if "without encryption" in line)


@pytest.mark.parametrize(
    ("trusted", "words"),
    [
        ([], "global.trusted_networks."),
        (["10.0.0.0/8"], "global.trusted_networks."),
        (["10.0.0.0/8", "192.168.1.0/24"], "over 192.168.1.0/24, which global.trusted_networks"),
    ],
)
def test_a_server_of_another_host(tmp_path: Path, trusted: list[str], words: str) -> None:
    gateway = {"servers": ["http://192.168.1.20:8000"]}
    line = said(tmp_path, MACHINES, trusted, gateway=gateway)
    assert "stt:gateway.servers: http://192.168.1.20:8000 is on another host" in line
    assert words in line and ("Use https" in line) == ("over " not in line)


def test_a_server_of_this_stack_that_is_published_elsewhere(tmp_path: Path) -> None:
    """As on another member of a cluster: the preview says which way leads there."""
    lan = {"type": "proxy", "listen": "tcp:192.168.1.12:8000", "connect": "tcp:127.0.0.1:8000"}
    more = {**MACHINES["stt"], "devices": {"lan": lan}}
    gateway = {"servers": ["http://192.168.1.12:8000"]}
    line = said(tmp_path, MACHINES, [], {"stt": more}, gateway=gateway)
    place = "http://192.168.1.12:8000 is where a proxy device of more/stt publishes it"
    assert f"stt:gateway.servers: {place}, and is asked without encryption: whoever" in line


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("setting", "url", "told"),
    [
        ("stt_url", "http://stt.home.arpa:8000/v1", True),  # nobody knows where a name leads
        ("ollama_url", "http://192.168.1.9:11434", True),
        ("stt_url", "https://192.168.1.9:8000/v1", False),
        ("stt_url", "http://10.120.0.1:8000/v1", False),  # of this stack: the gateway
        ("stt_url", "http://stt:8000/v1", False),
        ("stt_url", "http://gateway.incus:8000/v1", False),
        ("ollama_url", "http://nas:11434", True),
    ],
)
def test_what_open_webui_asks(tmp_path: Path, setting: str, url: str, told: bool) -> None:
    assert bool(said(tmp_path, MACHINES, [], webui={setting: url})) is told


def test_what_nobody_asks_is_not_told(tmp_path: Path) -> None:
    """Without Open WebUI its settings open no connection."""
    only = {"stt": MACHINES["stt"]}
    assert not said(tmp_path, only, [], webui={"ollama_url": "http://192.168.1.9:11434"})
    assert not said(tmp_path, MACHINES, [])


def test_a_network_is_a_network(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"trusted_networks"):
        said(tmp_path, MACHINES, ["192.168.1.7/24"])
