"""What leads to a service where it does not listen is refused, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from declaration.problems import DeclarationError
from roles import ROLES
from stack.declare import declare
from tests.unit.values import CPU

BASE = "base_system"
ADDRESS, LOOPBACK = "10.120.0.1", "127.0.0.1"
WEBUI = {"webui": {"roles": [BASE, "open_webui"]}}
PLACE = "infra.yml: domains.lab.machines.server.devices.lan.connect"


def only(host: str, before: str = "") -> str:
    """What is said of a server that listens on one address, and what may be done instead."""
    remedy = f"{before} or set" if before else "Set"
    return (
        f"the service of stt:port listens on {host} only, as stt:host is "
        f'"{host}". {remedy} stt:host to 0.0.0.0.'
    )


def problems(root: Path, infra: dict[str, Any], **settings: Any) -> list[str]:
    """What is wrong with a topology."""
    (root / "infra.yml").write_text(yaml.safe_dump(infra, sort_keys=False))
    try:
        declare({**CPU, "infra": "infra.yml", **settings}, ROLES, root)
    except DeclarationError as error:
        return [str(problem) for problem in error.problems]
    return []


def lab(**machines: Any) -> dict[str, Any]:
    """A domain with a server at 10.120.0.1, whatever else it has, and one that may reach it."""
    server = {"roles": [BASE, "stt_server", "ollama_server"]}
    office = {"trust_level": "untrusted", "machines": {"desk": {"roles": [BASE]}}}
    domain = {"trust_level": "semi-trusted", "machines": {"server": server, **machines}}
    return {"domains": {"lab": domain, "office": office}}


def rules(to: str, *ports: int, **machines: Any) -> dict[str, Any]:
    """The same with a rule."""
    return {**lab(**machines), "policy": [{"from": "office", "to": to, "ports": [*ports]}]}


def device(connect: str, **keys: str) -> dict[str, Any]:
    """The same with a proxy device that the server has."""
    lan = {"type": "proxy", "listen": "tcp:192.0.2.1:80", "connect": connect, **keys}
    infra = lab()
    infra["domains"]["lab"]["machines"]["server"]["devices"] = {"lan": lan}
    return infra


@pytest.mark.parametrize("to", ["lab/server", "lab", ADDRESS, "10.120.0.0/28"])
def test_a_rule_to_a_server_on_its_loopback_is_refused(to: str, tmp_path: Path) -> None:
    infra = rules(to, 8000, 11434)
    assert problems(tmp_path, infra, host=LOOPBACK) == [
        "infra.yml: policy.0.ports: 8000 lets office reach server, where "
        + only(LOOPBACK, "Remove the port,")
    ]
    for host in ("0.0.0.0", ADDRESS):
        assert problems(tmp_path, infra, host=host) == []
    assert problems(tmp_path, infra, host=LOOPBACK, enabled=False) == []
    assert problems(tmp_path, rules(to, 11434, 9000), host=LOOPBACK) == []


def test_a_rule_that_leads_to_others_as_well_stays(tmp_path: Path) -> None:
    own: dict[str, Any] = {"mine": {"roles": [BASE]}}
    assert problems(tmp_path, rules("lab", 8000, **own), host=LOOPBACK) == []
    assert problems(tmp_path, rules("10.120.0.0/16", 8000), host=LOOPBACK) == []
    webui = {"port": 8000, "stt_url": ""}
    assert problems(tmp_path, rules("lab", 8000, **WEBUI), host=LOOPBACK, webui=webui) == []
    udp = rules("lab/server", 8000)
    udp["policy"][0]["protocol"] = "udp"
    assert problems(tmp_path, udp, host=LOOPBACK) == []


def test_a_proxy_inside_the_machine_serves_for_the_service(tmp_path: Path) -> None:
    inside = {"type": "proxy", "bind": "instance", "connect": "tcp:192.0.2.1:8000"}
    infra = rules("lab/server", 8000)
    machine = infra["domains"]["lab"]["machines"]["server"]
    machine["devices"] = {"in": {**inside, "listen": f"tcp:{ADDRESS}:7999-8000"}}
    assert problems(tmp_path, infra, host=LOOPBACK) == []
    machine["devices"] = {"in": {**inside, "listen": f"tcp:{ADDRESS}:7999"}}
    assert len(problems(tmp_path, infra, host=LOOPBACK)) == 1


@pytest.mark.parametrize(
    ("connect", "keys", "host", "said"),
    [
        (
            f"tcp:{ADDRESS}:8000",
            {},
            LOOPBACK,
            only(LOOPBACK, 'Use "tcp:127.0.0.1:8000",'),
        ),
        (f"tcp:{ADDRESS}:8000", {"nat": "true"}, LOOPBACK, only(LOOPBACK)),
        ("tcp:0.0.0.0:8000", {"nat": "true"}, LOOPBACK, only(LOOPBACK)),
        (f"tcp:{ADDRESS}:8000", {"bind": "instance"}, LOOPBACK, only(LOOPBACK)),
        (
            "tcp:127.0.0.1:8000",
            {},
            ADDRESS,
            only(ADDRESS, 'Use "tcp:10.120.0.1:8000",'),
        ),
        (
            "tcp:localhost:7999-8000",
            {},
            ADDRESS,
            only(ADDRESS, 'Use "tcp:10.120.0.1:8000",'),
        ),
        ("tcp:0.0.0.0:8000", {}, ADDRESS, only(ADDRESS, 'Use "tcp:10.120.0.1:8000",')),
    ],
)
def test_a_proxy_to_where_nobody_listens_is_refused(
    connect: str, keys: dict[str, str], host: str, said: str, tmp_path: Path
) -> None:
    infra = device(connect, **keys)
    [found] = problems(tmp_path, infra, host=host)
    assert found == f'{PLACE}: "{connect}" leads to server, where {said}'
    assert problems(tmp_path, infra) == []  # on every address
    assert problems(tmp_path, infra, host=host, enabled=False) == []


@pytest.mark.parametrize(
    ("connect", "keys", "host"),
    [
        ("tcp:127.0.0.1:8000", {}, LOOPBACK),
        ("tcp:0.0.0.0:8000", {}, LOOPBACK),
        (f"tcp:{ADDRESS}:8000", {}, ADDRESS),
        (f"tcp:{ADDRESS}:8000", {"nat": "true"}, ADDRESS),
        ("tcp:0.0.0.0:8000", {"nat": "true"}, ADDRESS),
        ("tcp:127.0.0.1:8000", {"bind": "instance"}, ADDRESS),  # the host's
        (f"tcp:{ADDRESS}:11434", {}, LOOPBACK),  # Ollama's
        (f"tcp:{ADDRESS}:9000", {}, LOOPBACK),  # the operator's own
        ("udp:127.0.0.1:8000", {}, ADDRESS),
        ("unix:/run/x", {}, LOOPBACK),
        ("tcp:192.168.1.9:8000", {}, LOOPBACK),
    ],
)
def test_a_proxy_to_where_somebody_listens_is_not(
    connect: str, keys: dict[str, str], host: str, tmp_path: Path
) -> None:
    assert problems(tmp_path, device(connect, **keys), host=host) == []


def test_a_proxy_of_a_profile_or_to_another_machine_is_refused_too(tmp_path: Path) -> None:
    lan = {"type": "proxy", "listen": "tcp:192.0.2.1:80", "connect": f"tcp:{ADDRESS}:8000"}
    infra = lab(front={"roles": [BASE], "profiles": ["default", "lan"]})
    infra["domains"]["lab"]["profiles"] = {"lan": {"devices": {"lan": lan}}}
    [found] = problems(tmp_path, infra, host=LOOPBACK)
    assert found == (
        "infra.yml: domains.lab.profiles.lan.devices.lan.connect: "
        f'"tcp:{ADDRESS}:8000" leads to server, where the service of stt:port listens on '
        '127.0.0.1 only, as stt:host is "127.0.0.1". Set stt:host to 0.0.0.0.'
    )


def test_open_webui_is_not_pointed_at_a_server_on_its_loopback(tmp_path: Path) -> None:
    url = f"http://{ADDRESS}:8000/v1"
    found = problems(tmp_path, lab(**WEBUI), host=LOOPBACK, webui={"stt_url": url})
    assert found == [
        f'stt:webui.stt_url: "{url}" is asked from webui and leads to server, where '
        + only(LOOPBACK)
    ]
    for host in ("0.0.0.0", ADDRESS):
        assert problems(tmp_path, lab(**WEBUI), host=host, webui={"stt_url": url}) == []


def test_open_webui_is_not_pointed_at_a_port_where_nothing_listens(tmp_path: Path) -> None:
    for key, role in (("stt_url", "stt_server"), ("ollama_url", "ollama_server")):
        url = f"http://{ADDRESS}:9000/v1"
        assert role in ROLES
        assert problems(tmp_path, lab(**WEBUI), webui={key: url}) == [
            f'stt:webui.{key}: "{url}" is asked from webui and leads to server, where nothing '
            "listens on port 9000. Allowed there: 8000 (stt:port), 11434 (stt:ollama.port). Use "
            "one of them, or name the machine that serves."
        ]
    web = {"stt_url": f"http://{ADDRESS}/v1"}
    assert "on port 80." in problems(tmp_path, lab(**WEBUI), webui=web)[0]
    assert problems(tmp_path, lab(**WEBUI), webui=web, port=80) == []
    assert problems(tmp_path, lab(**WEBUI), webui=web, enabled=False) == []


@pytest.mark.parametrize("name", ["server", "server.incus"])
def test_a_machine_s_name_leads_where_its_address_does(name: str, tmp_path: Path) -> None:
    url = f"http://{name}:8000/v1"
    found = problems(tmp_path, lab(**WEBUI), host=LOOPBACK, webui={"stt_url": url})
    lead = "is asked from webui and leads to server, where"
    assert found == [f'stt:webui.stt_url: "{url}" {lead} {only(LOOPBACK)}']
    assert problems(tmp_path, lab(**WEBUI), webui={"stt_url": url}) == []
    for key in ("stt_url", "ollama_url"):
        [said] = problems(tmp_path, lab(**WEBUI), webui={key: f"http://{name}:9000"})
        assert f"{lead} nothing listens on port 9000." in said
    # Names of other domains are not known there.
    infra = lab()
    infra["domains"]["office"]["machines"] |= WEBUI
    assert problems(tmp_path, infra, host=LOOPBACK, webui={"stt_url": url}) == []


def test_a_machine_of_the_operator_s_may_serve_at_any_port(tmp_path: Path) -> None:
    web = {"stt_url": "http://10.120.0.3:9000/v1"}
    mine = {"mine": {"roles": [BASE], "ip": "10.120.0.3"}}
    assert problems(tmp_path, lab(**WEBUI, **mine), webui=web) == []


def test_one_machine_asks_itself_where_its_server_listens(tmp_path: Path) -> None:
    box = lab()
    box["domains"]["lab"]["machines"]["server"]["roles"].append("open_webui")
    own, loopback = f"http://{ADDRESS}:8000/v1", "http://127.0.0.1:8000/v1"
    for url, host in ((own, LOOPBACK), (loopback, ADDRESS)):
        [found] = problems(tmp_path, box, host=host, webui={"stt_url": url})
        assert found.startswith(
            f'stt:webui.stt_url: "{url}" is asked from server and leads to server, where the '
            f'service of stt:port listens on {host} only, as stt:host is "{host}". Use '
            f'"http://{host}:8000", or set stt:host to 0.0.0.0.'
        )
        assert problems(tmp_path, box, webui={"stt_url": url}) == []
    assert problems(tmp_path, box, host=ADDRESS, webui={"stt_url": own}) == []
    assert problems(tmp_path, box, host=LOOPBACK, webui={"stt_url": loopback}) == []
    [found] = problems(tmp_path, box, webui={"stt_url": "http://127.0.0.1:9000/v1"})
    assert "nothing listens on port 9000. Allowed there: 8000 (stt:port)" in found
    # Where it has no server, that is said, and nothing else.
    [found] = problems(tmp_path, lab(**WEBUI), webui={"stt_url": "http://127.0.0.1:9000/v1"})
    assert "webui itself, and that has no stt_server" in found


def test_a_gateway_is_not_pointed_at_a_server_on_its_loopback(tmp_path: Path) -> None:
    infra = lab()
    front = {"roles": [BASE, "stt_gateway"]}
    infra["domains"]["office"]["machines"] = {"front": front}
    gateway = {"servers": [f"http://{ADDRESS}:8000"]}
    [found] = problems(tmp_path, infra, host=LOOPBACK, gateway=gateway)
    assert found.startswith(f'stt:gateway.servers: "http://{ADDRESS}:8000" is asked from front')
    assert problems(tmp_path, infra, gateway=gateway) == []


def test_open_webui_behind_its_proxy_is_reached_by_https_only(tmp_path: Path) -> None:
    infra, webui = rules("lab/webui", 3000, 443, **WEBUI), {"tls": "internal"}
    assert problems(tmp_path, infra, webui=webui) == [
        "infra.yml: policy.0.ports: 3000 lets office reach webui, where the service of "
        'stt:webui.port listens on 127.0.0.1 only, as stt:webui.tls is "internal". Remove the '
        "port, or use port 443, which speaks HTTPS."
    ]
    assert problems(tmp_path, infra) == []
