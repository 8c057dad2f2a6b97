"""The stack configuration: what it may say, and how it is refused."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.specs import encode
from declaration.checks import check_ollama_model, seconds
from declaration.connection import parse_connection
from declaration.custom import ENVIRONMENT_FILE, Custom, custom_problems
from declaration.problems import DeclarationError
from declaration.source_files import ROOT
from declaration.stack_file import read_stack_file
from engines import ENGINES
from engines.models import resolve_model
from gpu.planner import plan_gpu
from roles import ROLES
from stack.declare import declare
from tests.unit.program import steps_of
from tests.unit.values import CARD, CPU, DEFAULTS, PEM, STACKS, declared, own

SHIPPED = (
    *("cpu", "dev", "gpu", "gpu-8gb", "owhisper", "parakeet", "pool", "production", "staging"),
    "vosk",
)
#: Set in the project's own CI, where a file that is shipped may not differ from the tests' copy.
STRICT = "STT_SHIPPED"


def problems(root: Path = ROOT, **changes: Any) -> list[str]:
    with pytest.raises(DeclarationError) as caught:
        declare({**CPU, **changes}, ROLES, root)
    return [str(problem) for problem in caught.value.problems]


def test_the_defaults_are_the_document_s() -> None:
    declaration = declare(DEFAULTS, ROLES, ROOT)
    settings = declaration.settings
    assert (str(settings.host), settings.port) == ("0.0.0.0", 8000)
    assert (settings.engine, declaration.services[0].model.name) == ("speaches", "large-v3-turbo")
    planned = plan_gpu(declaration, declaration.services[0], [CARD], []).compute_type
    assert (planned, settings.language, settings.enabled) == ("float16", "", True)


def stack_values(tmp_path: Path, text: str) -> dict[str, Any]:
    """What a stack's file sets; its topology is the tests' own."""
    (tmp_path / "stacks").mkdir()
    (tmp_path / "Pulumi.yaml").write_text((ROOT / "Pulumi.yaml").read_text())
    (tmp_path / "stacks" / "Pulumi.a.yaml").write_text(text)
    return read_stack_file(tmp_path, "a").plain_values()


@pytest.mark.parametrize("stack", SHIPPED)
def test_the_shipped_stacks_are_valid(
    stack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    text = (STACKS / f"Pulumi.{stack}.yaml").read_text()
    declare(stack_values(tmp_path, text), ROLES, ROOT)


def compare_with_shipped(path: str, same: bool) -> None:
    """An operator may have changed a file, and may have committed that: then nothing is wrong."""
    if not same and not os.environ.get(STRICT):
        pytest.skip(f"{path} is not as shipped: the tests go by their own copy")
    assert same, f"{path} and its copy in tests/unit/stacks differ. Change both."


@pytest.mark.parametrize("stack", SHIPPED)
def test_the_tests_start_from_the_shipped_stacks(stack: str, tmp_path: Path) -> None:
    """Comments apart; a topology is the tests' copy."""
    path = f"stacks/Pulumi.{stack}.yaml"
    text = (ROOT / path).read_text() if (ROOT / path).exists() else "config: {}\n"
    shipped = yaml.safe_load(text).get("config") or {}
    shipped["stt:infra"] = f"tests/unit/stacks/{shipped.get('stt:infra', 'infra.yml')}"
    copy = yaml.safe_load((STACKS / f"Pulumi.{stack}.yaml").read_text())["config"]
    compare_with_shipped(path, shipped == copy)


@pytest.mark.parametrize("file", [each.name for each in sorted(STACKS.glob("infra*.yml"))])
def test_the_tests_start_from_the_shipped_topologies(file: str) -> None:
    there = (ROOT / file).read_text() if (ROOT / file).exists() else ""
    compare_with_shipped(file, there == (STACKS / file).read_text())


BAD: list[tuple[dict[str, Any], str]] = [
    (
        {"webui.publish": "0.0.0.0:3000"},
        "stt:webui.publish: is the key publish of the group stt:webui. Write it below that: "
        "`stt:webui: {publish: …}`, or: pulumi config set --path 'stt:webui.publish' VALUE",
    ),
    (
        {"snapshots": {"schedule": "daily"}},
        'stt:snapshots.schedule: "daily" is not a schedule. Use one such as @daily',
    ),
    ({"updates": "hourly"}, 'stt:updates: "hourly" is not allowed. Allowed: daily, weekly'),
    ({"snapshots": {"schedule": "@daily,@weekly"}}, "is not a schedule"),
    *(
        ({"snapshots": {"schedule": wrong}}, "is not a schedule")
        for wrong in (
            *("0 3 * *", "60 * * * *", "0 24 * * *", "0 0 0 * *", "0 3 * * 7", "0 3 * * monday"),
            *("*/0 * * * *", "5-1 * * * *", "*-5 * * * *", "0  3 * * *", "@daily, daily"),
        )
    ),
    (
        {"snapshots": {"expiry": "7"}},
        'stt:snapshots.expiry: "7" is not a time to keep snapshots. Use one such as 7d',
    ),
    ({"snapshots": {"expiry": "1d 2d"}}, "is not a time to keep snapshots"),
    ({"snapshots": {"expiry": "1h"}}, "is not a time to keep snapshots"),
    ({"modle": "small"}, 'stt:modle: unknown key. Did you mean "model"?'),
    (
        {"clients": ["Phone"]},
        'stt:clients.0: "Phone" is not usable as a client\'s name. Use 1 to 32',
    ),
    *(
        ({"clients": [wrong]}, "is not usable as a client's name")
        for wrong in ("", "a" * 33, "1st", "phone-", "my phone", "a_b", "phone@home", "téléphone")
    ),
    ({"clients": ["phone", "tv", "phone"]}, 'stt:clients: has "phone" twice. Remove one'),
    ({"clients": "phone"}, "stt:clients"),
    ({"engine": "whisper"}, 'stt:engine: "whisper" is not allowed'),
    ({"engine": ""}, "stt:engine"),
    ({"model": "large-v3-trubo"}, 'Did you mean "large-v3-turbo"?'),
    ({"model": "./nowhere"}, "contains no model.bin"),
    ({"model": "a/b/c"}, "is not a known model"),
    ({"model": "a/b; rm -rf /"}, "is not a known model"),
    ({"model": "-x/y"}, "is not a known model"),
    ({"quantization": "int4"}, '"int4" is not allowed'),
    (
        {"quantization": "float16"},
        "does not run on a CPU, and gpu-server has no GPU. With speaches allowed: auto, int8",
    ),
    ({"quantization": False}, "stt:quantization: false is not allowed"),
    ({"language": "french"}, "is not a language code"),
    ({"language": "fr", "model": "small.en"}, "knows only English"),
    ({"host": "localhost"}, 'stt:host: "localhost" is not allowed'),
    (
        {"host": "10.0.0.1"},
        "is not an address of gpu-server. Allowed: 0.0.0.0, 127.0.0.1, 10.120.0.1",
    ),
    ({"port": 0}, "stt:port: 0 is not allowed"),
    ({"port": 65536}, "stt:port: 65536 is not allowed"),
    ({"port": "8000"}, 'stt:port: "8000" is not allowed'),
    ({"port": 8000.0}, "stt:port"),
    ({"port": True}, "stt:port: true is not allowed"),
    ({"port": 11434}, "both services are on the machine gpu-server"),
    ({"enabled": "yes"}, "stt:enabled"),
    ({"infra": "nowhere.yml"}, "cannot be read"),
    ({"infra": ""}, "stt:infra"),
    ({"connection": "ssh"}, "Use local, incus:REMOTE"),
    ({"connection": "ssh:-oProxyCommand=x"}, "Use local, incus:REMOTE"),
    ({"connection": "ssh:host; reboot"}, "Use local, incus:REMOTE"),
    ({"image": "-x"}, "is not the name of an image"),
    ({"image": "images:ubuntu 24"}, "is not the name of an image"),
    ({"pool": "a b"}, "is not the name of a storage pool"),
    ({"caBundle": "nowhere.pem"}, "is not a file"),
    ({"sources": {"olama": "x"}}, 'stt:sources.olama: unknown key. Did you mean "ollama"?'),
    ({"sources": {"ollama": "--upload-pack=x"}}, "is neither an address nor a path"),
    ({"sources": []}, "stt:sources"),
    ({"ollama": {"models": ["a b"]}}, "is not the name of an Ollama model"),
    ({"ollama": {"models": ["a:b/c"]}}, "is not the name of an Ollama model"),
    ({"ollama": {"keepAlive": "soon"}}, "is not a duration"),
    ({"webui": {"origins": ["http://a.test/"]}}, "is not an address without a path"),
    ({"webui": {"origins": ["*"]}}, "is not an address without a path"),
    ({"limits": {"audioMinutes": 0}}, "stt:limits.audioMinutes"),
    ({"limits": {"uploadMB": 10_001}}, "stt:limits.uploadMB"),
    ({"limits": {"waiting": 0}}, "stt:limits.waiting"),
    ({"limits": {"waiting": "many"}}, "stt:limits.waiting"),
    ({"limits": {"wait": 3}}, "stt:limits.wait"),
    ({"webui": {"stt_url": "javascript:x"}}, "is not a URL"),
    ({"webui": {"port": "x"}}, "stt:webui.port"),
]


@pytest.mark.parametrize(("changes", "expected"), BAD, ids=lambda value: str(value)[:40])
def test_what_is_refused_is_named_with_its_key(changes: dict[str, Any], expected: str) -> None:
    found = problems(**changes)
    assert any(expected in problem for problem in found), found


def test_files_that_are_no_text_are_refused(tmp_path: Path) -> None:
    latin, secret = tmp_path / "latin", tmp_path / "there-is-none"
    latin.write_bytes("# Schlüssel\n".encode("latin-1") + PEM.encode())
    no_text = f'"{latin}" is not UTF-8 text. Convert it.'
    assert problems(caBundle=str(latin)) == [f"stt:caBundle: {no_text}"]
    latin.with_name("empty").write_text("nothing")
    (said,) = problems(caBundle=str(latin.with_name("empty")))
    assert "has no certificate. Name a PEM file, or leave it empty." in said
    unit = tmp_path / "unit"
    unit.write_text("[Service]\nUser=stt\nEnvironmentFile=/etc/incus-stt/custom.env\n")
    for install, unit_file, place in ((latin, unit, "install"), (unit, latin, "unit")):
        custom = {"install": str(install), "unit": str(unit_file)}
        found = problems(engine="custom", model="mine", custom=custom)
        assert found == [f"stt:custom.{place}: {no_text}"]
    files = {"certificate": str(latin), "certificateKey": str(secret)}
    found = problems(webui={"tls": "files", **files})
    assert f"stt:webui.certificate: {no_text}" in found


def test_a_certificate_may_have_a_comment_in_any_language(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text(f"# Unsere Behörde – 家\n{PEM}", encoding="utf-8")
    steps = steps_of(declared(caBundle=str(bundle)))
    pem = encode(steps["ai-tools/gpu-server/base_system/certificates"].spec)["pem"]
    assert PEM in pem and pem.isascii() is False


def test_every_problem_is_told_at_once() -> None:
    assert len(problems(port=0, language="xx", infra="nowhere.yml", sorces={})) == 4


def test_a_key_that_is_refused_is_not_shown() -> None:
    for key in ("secret word", "short", 123456789, ["0123456789"]):
        text = " ".join(problems(apiKey=key))
        assert "stt:apiKey" in text
        assert str(key) not in text
        assert "0123456789" not in text


@pytest.mark.parametrize(
    ("name", "repository"),
    [
        ("large-v3-turbo", "deepdml/faster-whisper-large-v3-turbo-ct2"),
        ("small", "Systran/faster-whisper-small"),
        ("someone/my-model", "someone/my-model"),
    ],
)
def test_a_model_is_a_short_name_or_an_id(name: str, repository: str) -> None:
    assert resolve_model(name, ENGINES["speaches"]).repository == repository


@pytest.mark.parametrize(
    ("engine", "infra", "model"),
    [
        ("speaches", "infra.yml", "large-v3-turbo"),
        ("speaches", "infra.cpu.yml", "small"),
        ("faster-whisper", "infra.yml", "large-v3-turbo"),
        ("parakeet", "infra.yml", "parakeet-tdt-0.6b-v3"),
        ("vosk", "infra.yml", "vosk-model-small-en-us-0.15"),
        ("owhisper", "infra.cpu.yml", "base"),
    ],
)
def test_an_engine_brings_its_own_model(engine: str, infra: str, model: str) -> None:
    """So that another engine is one setting."""
    declaration = declare({**DEFAULTS, "engine": engine, "infra": own(infra)}, ROLES, ROOT)
    assert declaration.services[0].model.name == model


ENGINES_BAD: list[tuple[dict[str, Any], str]] = [
    ({"engine": "parakeet", "model": "large-v3"}, "is not a model of parakeet"),
    ({"engine": "parakeet", "model": "large-v3"}, "Leave stt:model empty"),
    ({"engine": "vosk", "model": "someone/model"}, "is not a known model"),
    ({"engine": "parakeet", "language": "fr"}, "cannot be told a language"),
    ({"engine": "parakeet", "language": "ja"}, "knows bg, cs, da"),
    ({"engine": "vosk", "language": "fr"}, "knows only English"),
    (
        {"engine": "vosk", "quantization": "int8"},
        "not a compute type of vosk. Allowed: auto, float32",
    ),
    ({"engine": "parakeet", "model": "./models/tiny-digits"}, "which contains no vocab.txt"),
    ({"engine": "custom"}, "stt:custom.install: is missing"),
    ({"engine": "custom", "custom": {"install": "README.md", "unit": "nowhere"}}, "is not a file"),
    (
        {"engine": "custom", "clients": ["phone", "tv"]},
        "stt:clients: has phone, tv, and the engine custom knows one key only. Remove the setting, "
        "or choose an engine that knows more: speaches, faster-whisper, owhisper, parakeet, vosk.",
    ),
    ({"engine": "custom", "model": ""}, "custom has no default. Name its model"),
    ({"engine": "custom", "model": "a b", "custom": {}}, "is not a model"),
    (
        {"engine": "custom", "custom": {"install": "README.md", "unit": "README.md"}},
        "add a line EnvironmentFile=/etc/incus-stt/custom.env",
    ),
    ({"custom": {"unit": "README.md"}}, "stt:engine is speaches. Set stt:engine to custom"),
    ({"custom": {"unti": "x"}}, 'Did you mean "unit"?'),
    ({"custom": {"health": "health"}}, "is not a path of a URL"),
    ({"check": {"recording": "README.md"}}, '"README.md" is not a WAV file. Name one'),
    ({"check": {"recording": "nowhere.wav"}}, '"nowhere.wav" is not a WAV file. Name one'),
    ({"check": {"words": "... !"}}, 'stt:check.words: "... !" has no word'),
    ({"keepAlive": "soon"}, "stt:keepAlive"),
    ({"force": "yes"}, "stt:force"),
]


@pytest.mark.parametrize(("changes", "expected"), ENGINES_BAD, ids=str)
def test_what_an_engine_cannot_do_is_refused(changes: dict[str, Any], expected: str) -> None:
    values = {**CPU, "model": "", "quantization": "auto", **changes}
    with pytest.raises(DeclarationError) as caught:
        declare(values, ROLES, ROOT)
    assert expected in str(caught.value)


def test_a_unit_that_runs_as_root_is_refused(tmp_path: Path) -> None:
    unit = tmp_path / "mine.service"
    lines = ["[Service]", f"EnvironmentFile={ENVIRONMENT_FILE}", "ExecStart=/bin/true"]
    custom = Custom(install="README.md", unit=str(unit))
    for user, wrong in (("", True), ("User=root", True), ("User=stt", False)):
        unit.write_text("\n".join([*lines, user, ""]))
        problems = custom_problems("custom", custom)
        assert bool(problems) == wrong, (user, problems)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("-1", -1), ("0", 0), ("5m", 300), ("1h30m", 5400), ("90s", 90), ("1.5m", 90), ("200ms", 1)],
)
def test_a_duration_in_seconds(text: str, wanted: int) -> None:
    assert seconds(text) == wanted


def test_a_model_may_be_a_directory() -> None:
    assert resolve_model("./models/mine", ENGINES["speaches"]).directory == "./models/mine"


@pytest.mark.parametrize(
    "name", ["llama3.2", "llama3.2:3b", "hf.co/team/llama:Q4_K_M", "10.0.0.9:5000/team/llama:3b"]
)
def test_a_model_of_ollama_may_come_from_another_registry(name: str) -> None:
    assert check_ollama_model(name) == name


def test_connections_are_read() -> None:
    assert str(parse_connection("ssh:me@host.example")) == "ssh:me@host.example"
    assert (parse_connection("incus:lab").kind, parse_connection("incus:lab").target) == (
        "incus",
        "lab",
    )
