"""HTTPS of the gateway: what the settings become, and what is refused."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.systemd import unit_text
from declaration.problems import DeclarationError
from roles import ROLES
from roles.stt_gateway.machine.authority import Authority
from roles.stt_gateway.machine.settings import read_settings
from stack.declare import declare
from stack.idle_settings import idle_settings
from tests.unit.program import Program, run
from tests.unit.values import CPU, certificate

STT = ["base_system", "stt_server"]
GATEWAY = ["base_system", "stt_gateway"]
BOTH: dict[str, list[str]] = {"front": GATEWAY, "one": STT}
WITH_WEBUI = {**BOTH, "web": ["base_system", "open_webui"]}
ROLE = "lab/front/stt_gateway"


def infra(root: Path, machines: dict[str, list[str]]) -> str:
    domain = {
        "trust_level": "trusted",
        "machines": {name: {"roles": roles} for name, roles in machines.items()},
    }
    file = root / "infra.yml"
    file.write_text(yaml.safe_dump({"domains": {"lab": domain}}, sort_keys=False))
    return str(file)


def program(root: Path, machines: dict[str, list[str]] = BOTH, **gateway: Any) -> Program:
    return run("cpu", infra=infra(root, machines), gateway=gateway)


def problems(root: Path, machines: dict[str, list[str]] = BOTH, **gateway: Any) -> list[str]:
    values = {**CPU, "infra": infra(root, machines), "gateway": gateway}
    try:
        declare(values, ROLES, root)
    except DeclarationError as error:
        return [str(problem) for problem in error.problems]
    return []


def conf(found: Program) -> str:
    [file] = found.steps[f"{ROLE}/service"].spec["files"]
    return str(file["content"])


def told(found: Program) -> Any:
    [file] = found.steps[f"{ROLE}/watcher"].spec["files"]
    return json.loads(file["content"])


# What the settings become


def test_without_tls_nothing_of_it_is_there(tmp_path: Path) -> None:
    found = program(tmp_path, WITH_WEBUI)
    assert "ssl" not in conf(found) and conf(found).count("listen ") == 1
    assert "authority" not in told(found) and "gateway_ca" not in found.outputs
    assert f"{ROLE}/authority" not in found.commands
    packages = found.steps[f"{ROLE}/packages"].spec
    assert "openssl" not in packages["names"]


def test_an_authority_of_its_own(tmp_path: Path) -> None:
    found = program(tmp_path, tls="internal", names=["stt.test", "192.168.1.5"], port=8443)
    assert "listen 0.0.0.0:8443 ssl;" in conf(found)
    assert "ssl_certificate /srv/gateway/authority/certificate.pem;" in conf(found)
    assert "ssl_protocols TLSv1.2 TLSv1.3;" in conf(found)
    assert told(found)["authority"] == {
        "directory": "/srv/gateway/authority",
        "name": "incus-stt lab gateway",
        "names": ["10.110.0.1", "localhost", "127.0.0.1", "stt.test", "192.168.1.5"],
    }
    assert found.outputs["stt_url"] == "https://stt.test:8443/v1"
    assert found.outputs["stt_health_url"] == "https://stt.test:8443/health"
    assert found.outputs["gateway_ca"] == "the certificate of the test"
    assert "curl -H@- --cacert gateway_ca.crt " in found.outputs["stt_curl"]
    assert found.outputs["stt_curl"].endswith(" https://stt.test:8443/v1/audio/transcriptions")
    directories = found.steps[f"{ROLE}/user"].spec["directories"]
    assert directories == [{"path": "/srv/gateway/authority", "mode": "0700"}]
    assert "lab/volume/gateway" in found.commands, "it outlives the machine"
    assert "openssl" in found.steps[f"{ROLE}/packages"].spec["names"]


def test_the_watcher_reads_what_it_is_told_of_the_authority(tmp_path: Path) -> None:
    file = tmp_path / "servers.json"
    file.write_text(json.dumps(told(program(tmp_path, tls="internal"))))
    names = ["10.110.0.1", "localhost", "127.0.0.1"]
    wanted = Authority(Path("/srv/gateway/authority"), "incus-stt lab gateway", names)
    assert read_settings(file).authority == wanted


def test_nginx_does_not_see_the_authority_s_key(tmp_path: Path) -> None:
    found = program(tmp_path, tls="internal")
    nginx, watcher = (
        unit_text(found.steps[f"{ROLE}/{part}"].spec["sections"]) for part in ("service", "watcher")
    )
    assert "\nInaccessiblePaths=-/srv/gateway/authority/root\n" in nginx
    writable = [line for line in nginx.splitlines() if line.startswith("ReadWritePaths=")]
    assert writable == ["ReadWritePaths=/var/lib/stt-gateway"]
    assert "\nReadWritePaths=/var/lib/stt-gateway /srv/gateway/authority\n" in watcher


def test_it_is_tried_as_clients_reach_it(tmp_path: Path) -> None:
    root = "/srv/gateway/authority/root/root.crt"
    found = program(tmp_path, tls="internal", names=["stt.test"])
    verify = found.steps[f"{ROLE}/verify"].spec
    assert (verify["url"], verify["name"]) == ("https://10.110.0.1:8000/v1", "stt.test")
    assert verify["certificate"] == root
    [health] = found.steps[f"{ROLE}/service"].spec["health"]
    assert (health["url"], health["certificate"]) == ("https://127.0.0.1:8000/health", root)
    own = program(tmp_path, names=["stt.test"], **certificate(tmp_path))
    verify = own.steps[f"{ROLE}/verify"].spec
    assert verify["certificate"] == "/etc/incus-stt/stt_gateway/certificate.pem"
    assert f"{ROLE}/certificate" in own.commands[f"{ROLE}/verify"].dependencies


def test_the_private_key_is_secret(tmp_path: Path) -> None:
    found = program(tmp_path, names=["stt.test"], **certificate(tmp_path))
    key = (tmp_path / "k.pem").read_text()
    private = key.splitlines()[1]
    holders = {name for name, command in found.commands.items() if private in str(command.inputs)}
    assert holders == {f"{ROLE}/certificate"}
    step = found.commands[f"{ROLE}/certificate"]
    assert (step.secret_inputs, step.inputs["logging"]) == ({"stdin"}, "none")
    public, secret = step.spec["secrets"]
    assert public["content"] == (tmp_path / "c.pem").read_text()
    assert secret["content"] == key and secret["owner"] == "stt-gateway:stt-gateway"
    assert step.spec.get("service", "") == "", "the watcher sees a change, and nothing restarts"
    assert told(found)["files"][2:] == [public["path"], secret["path"]]
    for file in (public["path"], secret["path"]):
        assert f" {file};" in conf(found)
    assert "gateway_ca" not in found.outputs and "--cacert" not in found.outputs["stt_curl"]


def test_another_certificate_does_not_touch_nginx(tmp_path: Path) -> None:
    first = program(tmp_path, names=["stt.test"], **certificate(tmp_path))
    second = program(tmp_path, names=["stt.test"], **certificate(tmp_path))
    for part, same in (("service", True), ("watcher", True), ("certificate", False)):
        specs = [each.commands[f"{ROLE}/{part}"].spec for each in (first, second)]
        assert (specs[0] == specs[1]) is same, part
    named = program(tmp_path, tls="internal"), program(tmp_path, tls="internal", names=["a.test"])
    assert conf(named[0]) == conf(named[1]) and told(named[0]) != told(named[1])


# Open WebUI


def test_open_webui_asks_without_tls_and_nobody_else_may(tmp_path: Path) -> None:
    found = program(tmp_path, WITH_WEBUI, tls="internal")
    variables = found.steps["lab/web/open_webui/service"].spec["variables"]
    assert variables["AUDIO_STT_OPENAI_API_BASE_URL"] == "http://10.110.0.1:9146/v1"
    text = conf(found)
    assert "listen 0.0.0.0:9146;" in text
    assert r'"~^9146:(?!10\.110\.0\.3/)' in text and "if ($stranger) {" in text
    service = found.steps[f"{ROLE}/service"].spec
    assert (service["more_ports"], service["variables"]) == ([9146], {"NGINX": "3;4;"})
    key = found.steps["lab/web/open_webui/secrets"].spec["secrets"][0]["variables"]
    assert key["AUDIO_STT_OPENAI_API_KEY"]
    alone = program(tmp_path, tls="internal")
    assert "9146" not in conf(alone)
    assert "more_ports" not in alone.steps[f"{ROLE}/service"].spec


# What is refused


@pytest.mark.parametrize(
    ("gateway", "said"),
    [
        ({"tls": "files"}, 'stt:gateway.certificate: "" is not a file.'),
        ({"tls": "files", "certificate": "README.md", "certificateKey": "README.md"}, "PEM"),
        ({"certificate": "README.md"}, "stt:gateway.certificate: is only for tls: files"),
        ({"tls": "on"}, "stt:gateway.tls"),
        ({"tls": "internal", "names": ["a b"]}, "is neither a host name nor an IPv4 address"),
        ({"tls": "internal", "port": 9146}, "takes port 9146, and so does stt:gateway.port"),
    ],
)
def test_what_does_not_work_is_refused(tmp_path: Path, gateway: dict[str, Any], said: str) -> None:
    assert said in " ".join(problems(tmp_path, **gateway))


def test_a_certificate_for_another_host_is_refused(tmp_path: Path) -> None:
    own = certificate(tmp_path)
    [problem] = problems(tmp_path, **own)
    assert problem == (
        f'stt:gateway.certificate: "{own["certificate"]}" is not for 10.110.0.1, as clients call '
        "the gateway. Begin stt:gateway.names with a name that it is for and that leads to the "
        "gateway, or name another certificate."
    )
    assert problems(tmp_path, names=["stt.test"], **own) == []
    assert "is not for other.test" in " ".join(problems(tmp_path, names=["other.test"], **own))
    assert problems(tmp_path, **certificate(tmp_path, "IP:10.110.0.1")) == []


def test_a_certificate_that_has_ended_is_left_to_the_doctor(tmp_path: Path) -> None:
    """`make status` reads the declaration, too."""
    own = certificate(tmp_path)
    words = ("x509", "-in", own["certificate"], "-signkey", own["certificateKey"], "-days", "-1")
    done = subprocess.run(["openssl", *words], check=True, capture_output=True)
    Path(own["certificate"]).write_bytes(done.stdout)
    assert problems(tmp_path, names=["stt.test"], **own) == []


def test_names_without_tls_are_idle(tmp_path: Path) -> None:
    values = {**CPU, "infra": infra(tmp_path, BOTH), "gateway": {"names": ["stt.test"]}}
    said = [str(problem) for problem in idle_settings(declare(values, ROLES, tmp_path), ROLES)]
    assert said == ["stt:gateway.names: has no effect: stt:gateway.tls is none."]
