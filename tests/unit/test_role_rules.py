"""What roles ask of machines and domains, and what cannot be reached by who is wired to it."""

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


def problems(root: Path, machines: dict[str, list[str]], **settings: Any) -> list[str]:
    """What is wrong with a domain of machines with roles."""
    domain = {
        "trust_level": "semi-trusted",
        "machines": {name: {"roles": roles} for name, roles in machines.items()},
    }
    (root / "infra.yml").write_text(yaml.safe_dump({"domains": {"lab": domain}}))
    try:
        declare({**CPU, "infra": "infra.yml", **settings}, ROLES, root)
    except DeclarationError as error:
        return [str(problem) for problem in error.problems]
    return []


@pytest.mark.parametrize("role", [name for name in ROLES if name != BASE])
def test_a_role_is_refused_without_what_it_needs(role: str, tmp_path: Path) -> None:
    others = {"server": [BASE, "stt_server"]}  # a gateway needs one
    assert problems(tmp_path, {"box": [role], **others}) == [
        f"domains.lab.machines.box.roles: {role} needs {BASE} on the same machine. Add it."
    ]
    assert problems(tmp_path, {"box": [role, BASE], **others}) == []


def test_an_engine_of_the_operator_s_own_brings_what_it_needs(tmp_path: Path) -> None:
    found = problems(tmp_path, {"box": ["stt_server"]}, engine="custom")
    assert found and not any("base_system" in problem for problem in found)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"port": 3000}, "stt:webui.port: takes port 3000, and so does stt:port"),
        ({"port": 11434}, "stt:port: takes port 11434, and so does stt:ollama.port"),
        (
            {"ollama": {"port": 3000}},
            "stt:webui.port: takes port 3000, and so does stt:ollama.port",
        ),
        ({"webui": {"tls": "internal"}, "port": 443}, "stt:webui.tls: takes port 443"),
    ],
)
def test_services_of_a_machine_do_not_take_the_same_port(
    settings: dict[str, Any], said: str, tmp_path: Path
) -> None:
    all_roles = [BASE, "ollama_server", "stt_server", "open_webui"]
    [problem] = problems(tmp_path, {"box": all_roles}, **settings)
    assert problem.startswith(said)
    assert problem.endswith("both services are on the machine box. Change one.")
    apart = {role: [BASE, role] for role in all_roles[1:]}
    apart = {name.replace("_", "-"): roles for name, roles in apart.items()}
    assert problems(tmp_path, apart, **settings) == []


def test_a_service_that_is_not_there_takes_no_port(tmp_path: Path) -> None:
    assert problems(tmp_path, {"box": [BASE, "stt_server"]}, port=11434) == []
    both = {"box": [BASE, "ollama_server", "stt_server"]}
    assert problems(tmp_path, both, port=11434, enabled=False) == []


def test_two_open_webuis_do_not_share_a_database(tmp_path: Path) -> None:
    webui = [BASE, "open_webui"]
    [problem] = problems(tmp_path, {"a": webui, "b": webui}, webui={"publish": ""})
    assert problem == (
        "domains.lab: the machines a, b have the role open_webui, and would share its data. Give "
        "it to one machine of the domain."
    )


def test_the_stt_server_listens_where_open_webui_reaches_it(tmp_path: Path) -> None:
    stt, webui = [BASE, "stt_server"], [BASE, "open_webui"]
    apart = {"gpu-server": stt, "webui": webui}
    [problem] = problems(tmp_path, apart, host="127.0.0.1")
    assert problem.startswith(
        'stt:host: "127.0.0.1" is reached only inside gpu-server, and Open WebUI on webui asks'
    )
    other = {"stt_url": "http://10.9.9.9:8000/v1"}
    assert problems(tmp_path, apart, host="127.0.0.1", webui=other) == []
    assert problems(tmp_path, apart, host="127.0.0.1", enabled=False) == []
    assert problems(tmp_path, {"box": [*stt, "open_webui"]}, host="127.0.0.1") == []
    assert problems(tmp_path, {"gpu-server": stt}, host="127.0.0.1") == []


#: Open WebUI in a machine of its own, as it is by default.
APART = {"server": [BASE, "stt_server", "ollama_server"], "webui": [BASE, "open_webui"]}


@pytest.mark.parametrize(
    ("settings", "role"),
    [
        ({"webui": {"stt_url": "http://127.0.0.1:8000/v1"}}, "stt_server"),
        ({"webui": {"stt_url": "http://localhost:8000/v1"}}, "stt_server"),
        ({"webui": {"ollama_url": "http://ollama.localhost:11434"}}, "ollama_server"),
        ({"webui": {"ollama_url": "http://127.0.1.1:11434"}}, "ollama_server"),
    ],
)
def test_no_machine_is_pointed_at_itself_for_what_it_has_not(
    settings: dict[str, Any], role: str, tmp_path: Path
) -> None:
    [(key, url)] = settings["webui"].items()
    [said] = problems(tmp_path, APART, **settings)
    assert said.startswith(
        f'stt:webui.{key}: "{url}" is asked from webui, where it leads to webui itself, and that '
        f"has no {role}. Name the address of the machine that serves"
    )
    together = {"box": [BASE, "stt_server", "ollama_server", "open_webui"]}
    assert problems(tmp_path, together, **settings) == []


@pytest.mark.parametrize("place", ["machine", "profile"])
def test_a_proxy_device_may_serve_inside_a_machine(place: str, tmp_path: Path) -> None:
    listen = {"type": "proxy", "bind": "instance", "listen": "tcp:127.0.0.1:9000"}
    device = {**listen, "connect": "tcp:192.168.1.9:9000"}
    machine: dict[str, Any] = {"roles": [BASE, "open_webui"]}
    domain: dict[str, Any] = {"trust_level": "semi-trusted", "machines": {"webui": machine}}
    if place == "machine":
        machine["devices"] = {"stt": device}
    else:
        machine["profiles"] = ["default", "inside"]
        domain["profiles"] = {"inside": {"devices": {"stt": device}}}
    (tmp_path / "infra.yml").write_text(yaml.safe_dump({"domains": {"lab": domain}}))
    webui = {"stt_url": "http://127.0.0.1:9000/v1"}
    declare({**CPU, "infra": "infra.yml", "webui": webui}, ROLES, tmp_path)


def test_a_gateway_is_not_pointed_at_itself(tmp_path: Path) -> None:
    front = {"front": [BASE, "stt_gateway"], "server": [BASE, "stt_server"]}
    [said] = problems(tmp_path, front, gateway={"servers": ["http://127.0.0.1:8000"]})
    assert said.startswith('stt:gateway.servers: "http://127.0.0.1:8000" is asked from front')
