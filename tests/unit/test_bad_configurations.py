"""Bad configurations: each is refused with its key, or carried through as the text that it is.

Specs are data: what runs in a machine is a list of words, and nothing is put into a shell's text.
"""

from __future__ import annotations

import copy
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.specs import encode
from agent.systemd import environment_text
from declaration.connection import Connection
from declaration.problems import DeclarationError
from declaration.source_files import ROOT
from engines import ENGINES
from host.client import incus_words
from roles import ROLES
from stack.declare import declare
from tests.unit.program import API_KEY, Registered, first_run, run, steps_of
from tests.unit.values import CPU, STACKS, declared

TOPOLOGY: dict[str, Any] = yaml.safe_load((STACKS / "infra.cpu.yml").read_text())
GPU_SERVER = "domains.ai-tools.machines.gpu-server"

#: Texts that a careless program would run, split or misread.
INJECTIONS = [
    "$(touch /tmp/incus-stt-canary)",
    "`touch /tmp/incus-stt-canary`",
    "x; touch /tmp/incus-stt-canary",
    "x\ntouch /tmp/incus-stt-canary",
    "x' ; touch /tmp/incus-stt-canary ; '",
    'x" ; touch /tmp/incus-stt-canary ; "',
    "-rf",
    "--help",
    "a|b&c>d<e",
    "*",
    "x\x00y",
    "../../etc/passwd\n",
]
#: The same as names of directories, which have no slash. A path of the machine gets no plus.
DIRECTORIES = [
    "$(canary+run)",
    "`canary+run`",
    "x; canary+run",
    "x' ; canary+run ; '",
    'x" ; canary+run ; "',
    "-rf canary+run",
    "* & canary+run",
]
STRINGS = [
    "engine",
    "model",
    "quantization",
    "language",
    "host",
    "connection",
    "image",
    "pool",
    "infra",
    "caBundle",
    "apiKey",
    "clients.0",
    "ollama.keepAlive",
    "ollama.models.0",
    "webui.ollama_url",
    "webui.stt_url",
]
#: What YAML makes of words that people write, and of what they forget.
TRAPS: list[Any] = [None, True, False, 0, -1, 1.5, 1e3, float("inf"), [], {}, [""], {"a": 1}, "no"]
INFRA_STRINGS = [
    "domains.ai-tools.trust_level",
    "domains.ai-tools.subnet",
    "domains.ai-tools.formerly",
    f"{GPU_SERVER}.type",
    f"{GPU_SERVER}.ip",
    f"{GPU_SERVER}.formerly",
    f"{GPU_SERVER}.roles.0",
    f"{GPU_SERVER}.profiles.0",
]
NAMES = ["domains.ai-tools", GPU_SERVER]


def changed(tree: Any, path: str, value: Any, rename: bool = False) -> Any:
    """A copy with another value at a path (or, with ``rename``, another key)."""
    tree = copy.deepcopy(tree)
    *way, last = path.split(".")
    at = tree
    for step in way:
        at = at.setdefault(step, [] if last == "0" and step == way[-1] else {})
    if isinstance(at, list):
        at[:] = [value]
    elif rename:
        at[value] = at.pop(last)
    else:
        at[last] = value
    return tree


def refusal(values: dict[str, Any], infra: Any, tmp: Path) -> list[str]:
    """The problems, each on a line of its own; none where it is accepted."""
    (tmp / "infra.yml").write_text(yaml.safe_dump(infra))
    values = {
        **values,
        "infra": values["infra"] if values["infra"] != CPU["infra"] else "infra.yml",
    }
    try:
        declare(values, ROLES, tmp)
    except DeclarationError as error:
        return [str(problem) for problem in error.problems]
    return []


@pytest.mark.sweep
@pytest.mark.parametrize("key", STRINGS)
@pytest.mark.parametrize("text", INJECTIONS, ids=ascii)
def test_an_injection_in_a_setting_is_refused(key: str, text: str, tmp_path: Path) -> None:
    found = refusal(changed(CPU, key, text), TOPOLOGY, tmp_path)
    assert any(f"stt:{key.split('.')[0]}" in problem for problem in found), found


@pytest.mark.parametrize("key", ["ollama", "speaches", "python", "models"])
@pytest.mark.parametrize("text", INJECTIONS, ids=ascii)
def test_an_address_is_refused_or_used_as_it_is(key: str, text: str, tmp_path: Path) -> None:
    url = f"https://mirror.example/{text}"
    found = refusal(changed(CPU, f"sources.{key}", url), TOPOLOGY, tmp_path)
    if found:
        assert f"stt:sources.{key}" in found[0]
        return
    steps = steps_of(declared(sources={key: url}))
    assert any(url in word for step in steps.values() for word in leaves(encode(step.spec)))


@pytest.mark.sweep
@pytest.mark.parametrize("key", sorted(CPU))
@pytest.mark.parametrize("value", TRAPS, ids=ascii)
def test_a_value_of_another_type_is_refused_or_means_what_it_says(
    key: str, value: Any, tmp_path: Path
) -> None:
    default = CPU[key]
    if type(value) is type(default) and value in ({}, [], "no", True, False):
        return  # of its type, and tested elsewhere
    found = refusal({**CPU, key: value}, TOPOLOGY, tmp_path)
    assert any(f"stt:{key}" in problem for problem in found), found


@pytest.mark.sweep
@pytest.mark.parametrize("path", INFRA_STRINGS)
@pytest.mark.parametrize("text", [*INJECTIONS, 7, True, [[]], {"a": 1}], ids=ascii)
def test_an_injection_in_the_topology_is_refused(path: str, text: Any, tmp_path: Path) -> None:
    found = refusal(CPU, changed(TOPOLOGY, path, text), tmp_path)
    assert any("infra.yml: domains.ai-tools" in problem for problem in found), found


@pytest.mark.parametrize("path", NAMES)
@pytest.mark.parametrize(
    "name", [*INJECTIONS, "", "A", "a_b", "a.b", "-a", "a-", "ä", "a" * 64, "1a", "a/b"], ids=ascii
)
def test_a_name_that_incus_refuses_is_refused_first(path: str, name: str, tmp_path: Path) -> None:
    found = refusal(CPU, changed(TOPOLOGY, path, name, rename=True), tmp_path)
    assert found and "infra.yml: domains" in found[0]


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("prot", "port"),
        ("modle", "model"),
        ("quantisation", "quantization"),
        ("keepmodels", "keepModels"),
        ("ollama.modles", "models"),
        ("webui.prot", "port"),
        ("sources.speeches", "speaches"),
    ],
)
def test_a_misspelt_setting_gets_a_suggestion(path: str, near: str, tmp_path: Path) -> None:
    found = refusal(changed(CPU, path, "x"), TOPOLOGY, tmp_path)
    assert f'Did you mean "{near}"?' in found[0]


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("domain", "domains"),
        ("domains.ai-tools.trust", "trust_level"),
        (f"{GPU_SERVER}.role", "roles"),
        (f"{GPU_SERVER}.device", "devices"),
        ("global.adressing", "addressing"),
        ("global.addressing.zonebase", "zone_base"),
    ],
)
def test_a_misspelt_key_of_the_topology_gets_a_suggestion(
    path: str, near: str, tmp_path: Path
) -> None:
    found = refusal(CPU, changed(TOPOLOGY, path, {}), tmp_path)
    assert any(f'Did you mean "{near}"?' in problem for problem in found), found


def test_free_text_reaches_incus_as_it_is(tmp_path: Path) -> None:
    """Descriptions, configuration and devices are Incus' own: they go in as JSON, on stdin."""
    texts = [text for text in INJECTIONS if "\x00" not in text]  # YAML files cannot hold it
    infra: dict[str, Any] = {"domains": {}}
    for number, text in enumerate(texts):
        machine = {
            "description": text,
            "config": {"user.note": text},
            "devices": {"extra": {"type": "none", "user.note": text}},
        }
        infra["domains"][f"d{number}"] = {
            "trust_level": "trusted",
            "description": text,
            "machines": {f"m{number}": machine},
        }
    (tmp_path / "infra.yml").write_text(yaml.safe_dump(infra, sort_keys=False))
    commands = run("cpu", infra=str(tmp_path / "infra.yml")).commands
    for number, text in enumerate(texts):
        project = commands[f"d{number}/project"].data
        instance = commands[f"d{number}/m{number}/instance"].data
        assert project["description"] == instance["description"] == text
        assert instance["config"]["user.note"] == text
        assert instance["devices"]["extra"]["user.note"] == text
    for command in commands.values():
        for text in texts:
            assert text not in str(command.inputs["create"]) or text in ("*", "-rf", "--help")


@pytest.mark.parametrize(
    ("name", "engine"),
    [
        pytest.param(name, engine, marks=[] if number < 2 else pytest.mark.sweep)
        for number, (name, engine) in enumerate(
            zip(DIRECTORIES, ["speaches", "faster-whisper"] * 4, strict=False)
        )
    ],
    ids=ascii,
)
def test_a_model_directory_may_have_any_name(name: str, engine: str, tmp_path: Path) -> None:
    directory = tmp_path / name
    directory.mkdir()
    (directory / "model.bin").touch()
    commands = run("dev", model=str(directory), engine=engine).commands
    for command in commands.values():
        words = shlex.split(command.inputs["create"])
        if name in command.inputs["create"] or str(directory) in words:
            assert command.name.endswith("/stt_server/model-files")
            assert words.count(str(directory)) == 1
    # Paths in the machine, and what systemd reads as a command line, have none of its characters.
    steps = {name.rpartition("/")[2]: step.spec for name, step in run_steps(commands).items()}
    paths = [steps["model-files"]["destination"], steps["model"]["directory"]]
    assert not any(set("+$`;'\"&* ") & set(path) for path in paths), paths
    assert "canary" not in str(steps["service"]["sections"])


def run_steps(commands: Mapping[str, Registered]) -> dict[str, Registered]:
    """The steps of the STT service."""
    return {name: each for name, each in commands.items() if "/stt_server/" in name}


# Quoting is by construction

SHELLS = {"sh", "bash", "/bin/sh", "/bin/bash"}


def leaves(data: Any) -> list[str]:
    if isinstance(data, Mapping):
        return [text for item in data.values() for text in leaves(item)]
    if isinstance(data, list):
        return [text for item in data for text in leaves(item)]
    return [data] if isinstance(data, str) else []


def programs(data: Any) -> list[Any]:
    """Every program with its arguments in a spec."""
    if isinstance(data, Mapping):
        own = [data[key] for key in ("argv", "check_argv") if data.get(key)]
        return own + [argv for item in data.values() for argv in programs(item)]
    return [argv for item in data for argv in programs(item)] if isinstance(data, list) else []


@pytest.mark.parametrize("engine", [name for name in ENGINES if name != "custom"])
def test_no_step_runs_a_shell(engine: str) -> None:
    declaration = declared(engine=engine, model="", quantization="auto", ollama={"models": ["a"]})
    specs = [encode(step.spec) for step in steps_of(declaration).values()]
    assert any(programs(spec) for spec in specs)
    for spec in specs:
        assert "script" not in spec
        for argv in programs(spec):
            assert all(isinstance(word, str) for word in argv)
            assert argv[0] not in SHELLS, argv


UNIT = """[Unit]
Description=mine {{secret:stt_server/key}}
[Service]
User=stt
EnvironmentFile=/etc/incus-stt/custom.env
ExecStart=/bin/true
"""


def test_a_secret_goes_only_where_the_program_puts_it(tmp_path: Path) -> None:
    """An operator's text that looks like the token of a secret stays a text."""
    script = "echo '{{secret:stt_server/key}}' {{secret:open_webui/session-key}} {{secret:x}}\n"
    (tmp_path / "install").write_text(script)
    (tmp_path / "unit").write_text(UNIT)
    infra = copy.deepcopy(TOPOLOGY)
    infra["domains"]["ai-tools"]["description"] = "{{secret:stt_server/key}}"
    (tmp_path / "infra.yml").write_text(yaml.safe_dump(infra))
    program = run(
        "cpu",
        engine="custom",
        model="mine",
        custom={name: str(tmp_path / name) for name in ("install", "unit")},
        infra=str(tmp_path / "infra.yml"),
    )
    steps = program.steps
    assert steps["ai-tools/gpu-server/stt_server/service"].spec["unit_text"] == UNIT
    assert steps["ai-tools/gpu-server/stt_server/install"].spec["script"] == script
    for name, command in program.commands.items():
        if API_KEY in str(command.inputs):
            assert name.endswith("/secrets")


def test_a_secret_s_token_cannot_be_known_beforehand() -> None:
    show = "from declaration.secret import secret; print(secret('x'))"
    words = [sys.executable, "-c", show]
    tokens = {subprocess.check_output(words, cwd=ROOT, text=True) for _ in range(2)}
    assert len(tokens) == 2


@pytest.mark.parametrize("stack", ["dev", "gpu"])
def test_no_token_of_a_secret_is_left(stack: str) -> None:
    program = first_run(stack)
    for name, command in program.commands.items():
        assert "{{secret" not in str(command.inputs), name
    assert "{{secret" not in str(program.outputs)


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60)


@settings(max_examples=100, deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=4))
def test_words_reach_the_client_as_they_are(words: list[str]) -> None:
    connection = Connection("incus", "lab")
    script = "incus() { printf '%s\\0' \"$@\"; }; " + incus_words(connection, words, "p")
    assert shell(script).split("\0")[:-1] == ["--project", "p", *words]
    # And once more, as ssh's other side reads it.
    assert shell(f"exec sh -c {shlex.quote(script)}").split("\0")[2:-1] == words


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=60))
def test_a_value_of_an_environment_file_is_the_same_text(text: str) -> None:
    """systemd reads double quotes in an EnvironmentFile as a shell does."""
    [line] = [each for each in environment_text({"K": text}).split("\n") if each.startswith("K=")]
    assert shell(f'{line}\nprintf %s "$K"') == text


def shell(script: str) -> str:
    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, check=True)
    return done.stdout.decode()
