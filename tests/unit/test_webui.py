"""Open WebUI: what its settings come to, and the program that makes them win."""

from __future__ import annotations

import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml

from declaration.problems import DeclarationError
from declaration.settings import conflicting_settings, parse_settings
from declaration.urls import webui_origins, webui_url
from roles import ROLES
from roles.open_webui.machine.declared import forget
from roles.open_webui.service import DECLARED, FIRST, OFF
from stack.declare import declare
from tests.unit.program import KEPT, Program, run, steps_of
from tests.unit.values import CPU, declared

WEBUI, PROXY = "ai-tools/webui/open_webui", "ai-tools/webui/webui_proxy"
WEB = "open_webui"
VOSK = {"engine": "vosk", "quantization": "auto", "model": "vosk-model-small-de-0.15"}
BASE, STT = "base_system", ["base_system", "stt_server"]


def topology(root: Path, **domains: dict[str, Any]) -> str:
    """The file of a topology with these domains' machines."""
    data = {
        name: {"trust_level": "semi-trusted", "machines": each} for name, each in domains.items()
    }
    file = root / "infra.yml"
    file.write_text(yaml.safe_dump({"domains": data}, sort_keys=False))
    return str(file)


def program(**webui: Any) -> Program:
    return run("cpu", webui=webui)


def test_only_what_is_declared_is_forgotten(tmp_path: Path) -> None:
    database = tmp_path / "webui.db"
    assert forget(database, ["a"]) == 0
    with sqlite3.connect(database) as connection:
        assert forget(database, ["a"]) == 0
        connection.execute("CREATE TABLE config (key TEXT PRIMARY KEY, value JSON)")
        connection.executemany("INSERT INTO config VALUES (?, '1')", [("a",), ("b",), ("c",)])
    assert forget(database, ["a", "c", "d"]) == 2
    with sqlite3.connect(database) as connection:
        assert connection.execute("SELECT key FROM config").fetchall() == [("b",)]


def test_every_variable_is_declared_first_or_read_at_each_start() -> None:
    known = run("cpu").steps[f"{WEBUI}/service"].spec["variables"]
    always = {
        *("HOME", "DATA_DIR", "STATIC_DIR", "WHISPER_LANGUAGE", "BYPASS_PYDUB_PREPROCESSING"),
        *("OFFLINE_MODE", "HF_HUB_OFFLINE", "ANONYMIZED_TELEMETRY", "DO_NOT_TRACK"),
        *("SCARF_NO_ANALYTICS", "ORT_DISABLE_TELEMETRY", "ENV", "CORS_ALLOW_ORIGIN"),
        *("WEBUI_SESSION_COOKIE_SECURE", "WEBUI_AUTH_COOKIE_SECURE"),
    }
    assert set(known) == always | set(FIRST) | (set(DECLARED) - {"AUDIO_STT_OPENAI_API_KEY"})


@pytest.mark.parametrize(
    ("webui", "url"),
    [
        ({}, "http://localhost:3000"),
        ({"publish": "0.0.0.0:8080"}, "http://localhost:8080"),
        ({"publish": "127.0.0.1:8080"}, "http://localhost:8080"),
        ({"publish": "192.168.1.5:3000"}, "http://192.168.1.5:3000"),
        ({"publish": ""}, "http://10.120.0.2:3000"),
        ({"tls": "internal"}, "https://10.120.0.2"),
        ({"tls": "internal", "names": ["w.test"], "publish": "0.0.0.0:443"}, "https://w.test"),
        ({"tls": "internal", "names": ["w.test"]}, "https://w.test:3000"),
        ({"tls": "internal", "names": ["w.test"], "publish": ""}, "https://w.test"),
    ],
)
def test_the_url_is_one_with_a_microphone(webui: dict[str, Any], url: str) -> None:
    declaration = declared(webui=webui)
    [machine] = [each for each in declaration.topology.machines if "open_webui" in each.roles]
    assert webui_url(declaration.settings, machine) == url


@pytest.mark.parametrize(
    ("webui", "more"),
    [
        ({}, ["http://localhost:3000", "http://127.0.0.1:3000", "http://10.120.0.2:3000"]),
        ({"publish": "127.0.0.1:80"}, ["http://localhost", "http://localhost:3000"]),
        ({"publish": "192.168.1.5:8080"}, ["http://192.168.1.5:8080", "http://localhost:8080"]),
        ({"publish": ""}, ["http://10.120.0.2:3000"]),
        ({"origins": ["http://nas.test:81"]}, ["http://nas.test:81", "http://localhost:3000"]),
        (
            {"tls": "internal", "names": ["w.test"], "publish": "0.0.0.0:443"},
            ["https://w.test", "https://10.120.0.2", "https://localhost"],
        ),
        ({"tls": "internal", "names": ["w.test"]}, ["https://w.test:3000", "https://w.test"]),
    ],
)
def test_open_webui_answers_its_own_pages_only(webui: dict[str, Any], more: list[str]) -> None:
    declaration = declared(webui=webui)
    [machine] = [each for each in declaration.topology.machines if "open_webui" in each.roles]
    origins = webui_origins(declaration.settings, machine)
    assert set(more) <= set(origins) and len(origins) == len(set(origins))
    assert not any("*" in each or "0.0.0.0" in each for each in origins)
    tls = webui.get("tls", "none") != "none"
    # The proxy makes https of it, and has no pages without.
    assert all(each.startswith("https://") == tls for each in origins)
    url = webui_url(declaration.settings, machine)
    assert url.removesuffix(":80") in origins  # as a browser has it
    service: Any = steps_of(declaration)[f"{WEBUI}/service"].spec
    variables = service.variables
    assert variables["CORS_ALLOW_ORIGIN"] == ";".join(origins)
    for cookie in ("SESSION", "AUTH"):
        assert variables[f"WEBUI_{cookie}_COOKIE_SECURE"] == ("true" if tls else "false")
    assert variables["ENV"] != "dev"


def test_pages_that_nobody_named_are_warned_of() -> None:
    def told(**webui: Any) -> bool:
        return any("stt:webui.origins" in line for line in program(**webui).log)

    assert told(publish="0.0.0.0:3000")
    assert not told(publish="0.0.0.0:3000", origins=["http://192.168.1.5:3000"])
    assert not told(publish="0.0.0.0:443", tls="internal", names=["w.test"])
    assert not told()


def test_the_proxy_has_a_certificate_for_every_name() -> None:
    assert not any(name.startswith(PROXY) for name in steps_of(declared()))
    made = program(tls="internal", names=["w.test", "192.168.1.5"])
    [caddyfile] = made.steps[f"{PROXY}/service"].spec["files"]
    assert caddyfile["path"].endswith("/Caddyfile")
    for name in ("10.120.0.2", "localhost", "127.0.0.1", "w.test", "192.168.1.5"):
        assert f"https://{name}" in caddyfile["content"]
    assert "tls internal" in caddyfile["content"]
    assert made.outputs["webui_ca"] == "the certificate of the test"


def test_behind_the_proxy_no_password_travels_in_the_clear() -> None:
    for tls, host in (("none", "0.0.0.0"), ("internal", "127.0.0.1")):
        service: Any = steps_of(declared(webui={"tls": tls}))[f"{WEBUI}/service"].spec
        assert service.host == host
        assert f"serve --host {host} --port 3000" in service.sections["Service"]["ExecStart"]


def test_the_private_key_is_secret(tmp_path: Path) -> None:
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    words = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=t", "-days", "1")
    files = ("-keyout", str(key), "-out", str(certificate))
    subprocess.run(["openssl", *words, *files], check=True, capture_output=True)
    made = program(tls="files", certificate=str(certificate), certificateKey=str(key))
    private = key.read_text().splitlines()[1]
    holders = {name for name, command in made.commands.items() if private in str(command.inputs)}
    assert holders == {f"{PROXY}/secrets"}
    secrets = made.commands[f"{PROXY}/secrets"]
    assert (secrets.secret_inputs, secrets.inputs["logging"]) == ({"stdin"}, "none")
    # Both in one step: a restart between them would have a key without its certificate.
    contents = [each["content"] for each in secrets.spec["secrets"]]
    assert contents == [certificate.read_text(), key.read_text()]
    # Caddy restarts with them, and answers only if Open WebUI behind it does.
    assert f"{WEBUI}/service" in secrets.dependencies


def test_one_address_is_for_one_machine(tmp_path: Path) -> None:
    roles = {"roles": ["base_system", "open_webui"]}
    domains = {
        name: {"trust_level": "semi-trusted", "machines": {name: roles}} for name in ("a", "b")
    }
    (tmp_path / "infra.yml").write_text(yaml.safe_dump({"domains": domains}))
    settings = {**CPU, "infra": "infra.yml"}
    with pytest.raises(DeclarationError, match="2 machines have the role open_webui: a, b"):
        declare(settings, ROLES, tmp_path)
    declare({**settings, "webui": {"publish": ""}}, ROLES, tmp_path)


@pytest.mark.parametrize(
    ("webui", "said"),
    [
        ({"tls": "files"}, "stt:webui.certificate"),
        ({"tls": "files", "certificate": "README.md", "certificateKey": "README.md"}, "PEM"),
        ({"certificate": "README.md"}, "is only for tls: files"),
        ({"tls": "internal", "port": 443}, "where the HTTPS proxy listens"),
    ],
)
def test_certificates_that_do_not_work_are_refused(webui: dict[str, Any], said: str) -> None:
    problems = conflicting_settings(parse_settings({**CPU, "webui": webui}))
    assert said in " ".join(str(problem) for problem in problems)


@pytest.mark.sample(4)
@pytest.mark.parametrize(
    ("webui", "sent"),
    [
        ({}, KEPT["stt_server/key"]),
        ({"stt_url": "http://10.120.0.1:8000/v1"}, KEPT["stt_server/key"]),
        ({"stt_url": "https://api.example.com/v1"}, ""),
        ({"stt_url": "https://api.example.com/v1", "sttKey": "key-of-theirs"}, "key-of-theirs"),
        ({"sttKey": "key-of-theirs"}, KEPT["stt_server/key"]),
        # By its machine's names.
        ({"stt_url": "http://gpu-server:8000/v1"}, KEPT["stt_server/key"]),
        ({"stt_url": "http://gpu-server.incus:8000/v1"}, KEPT["stt_server/key"]),
        ({"stt_url": "http://gpu-server.incus.:8000/v1"}, KEPT["stt_server/key"]),
        ({"stt_url": "http://gpu-server:8001/v1", "sttKey": "key-of-theirs"}, None),
        ({"stt_url": "http://gpu-server.example:8000/v1"}, ""),
        ({"stt_url": "http://gpu-server.:8000/v1"}, ""),
    ],
)
def test_the_key_of_this_service_goes_to_this_service_only(
    webui: dict[str, Any], sent: str | None
) -> None:
    if sent is None:
        with pytest.raises(pulumi.RunError, match="nothing listens on port 8001"):
            sent_key(webui=webui)
    else:
        assert sent_key(webui=webui) == sent


@pytest.mark.parametrize(
    ("url", "wired"),
    [
        ("https://api.example.com/v1", True),
        ("http://10.120.0.1:8000/v1", False),
        ("http://10.120.0.1:8000/v1/", False),
        ("http://gpu-server:8000/v1", False),
        ("http://gpu-server.incus:8000/v1", False),
    ],
)
def test_a_service_of_others_stays_wired_while_this_one_is_off(url: str, wired: bool) -> None:
    found = run("cpu", enabled=False, webui={"stt_url": url})
    variables = found.commands[f"{WEBUI}/service"].spec["variables"]
    assert (variables["AUDIO_STT_OPENAI_API_BASE_URL"] == url) == wired
    assert (OFF in variables["AUDIO_STT_OPENAI_API_BASE_URL"]) != wired
    asked = found.commands[f"{WEBUI}/verify"].spec["argv"]
    assert any("recording" in word for word in asked) == wired


def sent_key(**settings: Any) -> str:
    """What Open WebUI sends with a recording."""
    made = run("cpu", secret=True, **settings).commands[f"{WEBUI}/secrets"]
    assert made.secret_inputs == {"stdin"}
    [file] = made.spec["secrets"]
    key: str = file["variables"]["AUDIO_STT_OPENAI_API_KEY"]
    return key


def test_the_key_goes_where_a_proxy_device_publishes_the_service(tmp_path: Path) -> None:
    key = KEPT["stt_server/key"]
    for listen, sent in (("10.120.0.254", key), ("0.0.0.0", key), ("192.168.1.5", "")):
        lan = {"type": "proxy", "listen": f"tcp:{listen}:8100", "connect": "tcp:127.0.0.1:8000"}
        server = {"roles": STT, "devices": {"lan": lan}}
        machines = {"gpu-server": server, "webui": {"roles": [BASE, "open_webui"]}}
        settings: dict[str, Any] = {
            "infra": topology(tmp_path, **{"ai-tools": machines}),
            "webui": {"stt_url": "http://10.120.0.254:8100/v1"},
        }
        assert sent_key(**settings) == sent
        assert sent_key(**settings, host="127.0.0.1") == sent


def test_a_bare_name_is_of_the_own_domain(tmp_path: Path) -> None:
    webui = {"roles": [BASE, "open_webui"]}
    infra = topology(tmp_path, more={"stt": {"roles": STT}}, **{"ai-tools": {"webui": webui}})
    for host, sent in (("10.120.0.1", KEPT["stt_server/key"]), ("stt", ""), ("stt.incus", "")):
        assert sent_key(infra=infra, webui={"stt_url": f"http://{host}:8000/v1"}) == sent


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("url", "asked"),
    [
        (None, "ai-tools/one/stt_server"),
        ("http://two:8000/v1", "ai-tools/two/stt_server"),
        ("http://10.120.0.2:8000/v1/", "ai-tools/two/stt_server"),
        ("http://10.120.1.1:8000/v1", "more/stt/stt_server"),
        ("http://10.120.1.1:8000", "more/stt/stt_server"),
        ("https://api.example.com/v1", ""),
        ("", ""),
    ],
)
def test_open_webui_follows_the_service_that_it_asks(
    tmp_path: Path, url: str | None, asked: str
) -> None:
    machines = {"one": {"roles": STT}, "two": {"roles": STT}, "webui": {"roles": [BASE, WEB]}}
    infra = topology(tmp_path, **{"ai-tools": machines}, more={"stt": {"roles": STT}})
    made = run("cpu", infra=infra, webui={"stt_url": url}).commands
    for step, part in (("service", "service"), ("verify", "verify")):
        before = made[f"{WEBUI}/{step}"].dependencies
        found = {each for each in before if each.endswith(f"/stt_server/{part}")}
        assert found == ({f"{asked}/{part}"} if asked else set())
    place = asked.removesuffix("/stt_server").removeprefix("ai-tools/")
    resolution = made[f"{WEBUI}/verify"].spec["resolution"]
    assert resolution.endswith(f"STT service in {place}." if asked else "in webui.")


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    "end", ["http://10.120.1.2:9146/v1/", "https://10.120.1.2:8000/v1", "https://stt.test:8000/v1"]
)
def test_open_webui_follows_a_gateway_of_another_domain(tmp_path: Path, end: str) -> None:
    more = {"stt": {"roles": STT}, "front": {"roles": [BASE, "stt_gateway"]}}
    infra = topology(tmp_path, **{"ai-tools": {"webui": {"roles": [BASE, WEB]}}}, more=more)
    gateway = {"tls": "internal", "names": ["stt.test"]}
    settings: dict[str, Any] = {"infra": infra, "gateway": gateway, "webui": {"stt_url": end}}
    before = run("cpu", **settings).commands[f"{WEBUI}/verify"].dependencies
    assert {"more/front/stt_gateway/verify", "more/stt/stt_server/verify"} <= set(before)
    assert sent_key(**settings) == KEPT["stt_server/key"]


@pytest.mark.parametrize(
    "url", ["http://localhost:8000/v1", "http://127.0.0.1:8000/v1/", "http://box.incus:8000/v1"]
)
def test_the_service_of_the_same_machine_is_known(tmp_path: Path, url: str) -> None:
    infra = topology(tmp_path, **{"ai-tools": {"box": {"roles": [*STT, WEB]}}})
    settings: dict[str, Any] = {**VOSK, "infra": infra, "webui": {"stt_url": url}}
    made = run("cpu", **settings).commands["ai-tools/box/open_webui/verify"]
    assert made.spec["environment"]["STT_WORDS"] == ""
    assert "ai-tools/box/stt_server/verify" in made.dependencies
    off = run("cpu", **settings, enabled=False).commands["ai-tools/box/open_webui/service"]
    assert OFF in off.spec["variables"]["AUDIO_STT_OPENAI_API_BASE_URL"]


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("key", "url", "told"),
    [
        ("stt_url", "https://stt.example.com/v1", "Use an IP address, one that its certificate is"),
        ("stt_url", "http://stt.example.com/v1", 'Use an IP address or set egress to "open" ('),
        ("ollama_url", "http://nas:11434", "cannot look it up unless a container there has the n"),
        ("stt_url", "http://stt.incus:8000/v1", "Use its address, 10.120.1.1 (more/stt)."),
        ("stt_url", "http://one:8000/v1", ""),
        ("ollama_url", "http://one.incus:11434", ""),
        ("stt_url", "https://192.168.1.9/v1", ""),
        ("ollama_url", None, ""),
    ],
)
def test_a_name_that_cannot_be_looked_up_is_told(
    tmp_path: Path, key: str, url: str | None, told: str
) -> None:
    """The DNS of a bridge that is closed knows the machines of its domain only."""
    machines = {"one": {"roles": [*STT, "ollama_server"]}, "webui": {"roles": [BASE, WEB]}}
    infra = topology(tmp_path, **{"ai-tools": machines}, more={"stt": {"roles": STT}})
    settings: dict[str, Any] = {"infra": infra, "webui": {key: url}}

    def lines(egress: str) -> list[str]:
        data = yaml.safe_load(Path(infra).read_text())
        data["domains"]["ai-tools"]["egress"] = egress
        Path(infra).write_text(yaml.safe_dump(data, sort_keys=False))
        return [line for line in run("cpu", **settings).log if "cannot look it up" in line]

    for egress in ("install", "closed"):
        found = lines(egress)
        assert len(found) == bool(told)
        for line in found:
            assert line.startswith(f'stt:webui.{key}: "{url}" has a name, and webui of the domain ')
            assert f'its egress is "{egress}"' in line and told in line
    assert lines("open") == []


def test_where_no_key_is_asked_for_open_webui_sends_none() -> None:
    assert sent_key(authentication="none") == ""
    theirs = {"stt_url": "https://api.example.com/v1", "sttKey": "key-of-theirs"}
    assert sent_key(authentication="none", webui=theirs) == "key-of-theirs"


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "one two three"),
        ({"language": "de"}, ""),
        ({"check": {"words": ""}}, ""),
        ({"check": {"words": "uno due"}, "language": "it"}, "uno due"),
        ({"check": {"recording": "recordings/hello_world.wav"}}, ""),
        # This stack's own, by its address.
        ({"webui": {"stt_url": "http://10.120.0.1:8000/v1"}}, "one two three"),
        ({"webui": {"stt_url": "https://api.example.com/v1"}}, "one two three"),
        ({"webui": {"stt_url": "https://api.example.com/v1"}, "language": "de"}, ""),
        # Its model knows no English, whatever the URL is written like.
        *(
            ({**VOSK, "webui": {"stt_url": f"http://{end}"}}, "")
            for end in ("10.120.0.1:8000/v1", "10.120.0.1:8000/v1/", "gpu-server:8000/v1")
        ),
        ({"webui": {"stt_url": ""}}, None),
        ({"enabled": False}, None),
    ],
)
def test_the_words_that_open_webui_has_to_hear(settings: dict[str, Any], words: str | None) -> None:
    """Those of the STT server's own verification; nobody else listens to a service elsewhere."""
    made = run("cpu", **settings).steps
    verify = made[f"{WEBUI}/verify"].spec
    expected = None if words is None else {"STT_WORDS": words, "STT_ERROR_RATE": "0.34"}
    assert verify.get("environment") == expected
    assert len(verify["argv"]) == (3 if words is None else 4)
    # A service elsewhere has no journal here.
    elsewhere = "example.com" in settings.get("webui", {}).get("stt_url", "")
    assert ("gpu-server" in verify["resolution"]) == (words is not None and not elsewhere)
    if words is not None and "webui" not in settings:
        own = made["ai-tools/gpu-server/stt_server/verify"].spec
        assert (own.get("words", ""), own["error_rate"]) == (words, 0.34)
