"""Bad configurations: each is refused with its key, or carried through as the text that it is.

What is put into a shell is quoted: a property of the filter, and a rule that every template keeps.
"""

from __future__ import annotations

import copy
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from components.engines import ENGINES, EngineContext
from components.roles import ROLES
from components.templates import quote, render, unit_value
from hypothesis import given, settings
from hypothesis import strategies as st

from components.command import on_host
from declaration.problems import DeclarationError
from declaration.settings import Connection
from tests.e2e.project import ROOT
from tests.unit.program import plain, run
from tests.unit.test_settings import CPU

TOPOLOGY: dict[str, Any] = yaml.safe_load((ROOT / "infra.cpu.yml").read_text())
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


@pytest.mark.parametrize("key", STRINGS)
@pytest.mark.parametrize("text", INJECTIONS, ids=ascii)
def test_an_injection_in_a_setting_is_refused(key: str, text: str, tmp_path: Path) -> None:
    found = refusal(changed(CPU, key, text), TOPOLOGY, tmp_path)
    assert any(f"stt:{key.split('.')[0]}" in problem for problem in found), found


@pytest.mark.parametrize("key", ["ollama", "speaches", "python", "models"])
@pytest.mark.parametrize("text", INJECTIONS, ids=ascii)
def test_an_injection_in_a_source_is_refused_or_quoted(
    key: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A URL may have nearly any character; what is no refused white space goes in quotes."""
    url = f"https://mirror.example/{text}"
    found = refusal(changed(CPU, f"sources.{key}", url), TOPOLOGY, tmp_path)
    if found:
        assert f"stt:sources.{key}" in found[0]
        return
    program = run(monkeypatch, "cpu", sources={key: url}, infra="infra.cpu.yml")
    scripts = [str(command.inputs.get("stdin")) for command in program.commands.values()]
    used = [script for script in scripts if url in script]
    for script in used:
        assert url not in script.replace(shlex.quote(url), "")


@pytest.mark.parametrize("key", sorted(CPU))
@pytest.mark.parametrize("value", TRAPS, ids=ascii)
def test_a_value_of_another_type_is_refused_or_means_what_it_says(
    key: str, value: Any, tmp_path: Path
) -> None:
    default = CPU[key]
    if type(value) is type(default) and value in ({}, "no", True, False):
        return  # of its type, and tested elsewhere
    found = refusal({**CPU, key: value}, TOPOLOGY, tmp_path)
    assert any(f"stt:{key}" in problem for problem in found), found


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


@pytest.mark.parametrize("text", INJECTIONS, ids=ascii)
def test_free_text_reaches_incus_as_it_is(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Descriptions, configuration and devices are Incus' own: they go in as YAML, on stdin."""
    if "\x00" in text:
        return  # YAML files cannot hold it
    infra = copy.deepcopy(TOPOLOGY)
    infra["domains"]["ai-tools"]["description"] = text
    machine = infra["domains"]["ai-tools"]["machines"]["gpu-server"]
    machine |= {
        "description": text,
        "config": {"user.note": text},
        "devices": {"extra": {"type": "none", "user.note": text}},
    }
    (tmp_path / "infra.yml").write_text(yaml.safe_dump(infra))
    commands = run(monkeypatch, "cpu", infra=str(tmp_path / "infra.yml")).commands
    project = yaml.safe_load(commands["ai-tools/project"].inputs["stdin"])
    instance = yaml.safe_load(commands["ai-tools/gpu-server/instance"].inputs["stdin"])
    assert project["description"] == instance["description"] == text
    assert instance["config"]["user.note"] == text
    assert instance["devices"]["extra"]["user.note"] == text
    for command in commands.values():
        assert text not in str(command.inputs["create"]) or text in ("*", "-rf", "--help")


@pytest.mark.parametrize("engine", ["speaches", "faster-whisper"])
@pytest.mark.parametrize("name", DIRECTORIES, ids=ascii)
def test_a_model_directory_may_have_any_name(
    name: str, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / name
    directory.mkdir()
    (directory / "model.bin").touch()
    program = run(monkeypatch, "cpu", model=str(directory), engine=engine, infra="infra.dev.yml")
    values = {**CPU, "model": str(directory), "engine": engine, "quantization": "int8"}
    declaration = declare(values, ROLES, ROOT)
    context = EngineContext(
        declaration.settings,
        declaration.engine,
        "cpu",
        declaration.model,
        declaration.compute_type,
        lambda _: "d19e57d19e57",
    )
    args = ENGINES[engine](context)
    files = [*args.unit.files(), *args.files]
    health = f"healthy() {{\n{args.health.strip()}\n}}\nhealthy\n"
    # Longest first, for they hold the shorter ones.
    quoted = [*(file.content for file in files), health, str(directory)]
    for command in program.commands.values():
        for key in ("create", "stdin"):
            script = str(plain(command.inputs.get(key, "")))
            for text in quoted:
                script = script.replace(shlex.quote(text), "")
            assert "canary+run" not in script, command.name


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60)


@settings(max_examples=150, deadline=None)
@given(TEXT)
def test_a_quoted_text_is_one_word_and_the_same_text(text: str) -> None:
    script = f"printf %s {quote(text)}"
    assert shell(script) == text
    # and once more, as ssh's other side reads it
    assert shell(on_host(Connection("local"), script)) == text


@settings(max_examples=150, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=60))
def test_a_value_of_an_environment_file_is_the_same_text(text: str) -> None:
    """systemd reads double quotes in an EnvironmentFile as a shell does."""
    assert shell(f'v={unit_value(text)}; printf %s "$v"') == text
    assert "\n" not in render("environment.j2", variables=[("K", text)]).splitlines()[-1]


def shell(script: str) -> str:
    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, check=True)
    return done.stdout.decode()


#: What templates insert as it is: numbers, this program's own constants, and words that are quoted
#: already (`name`, `image`, `stand_in` and `where` in host/, whose callers quote them).
INERT = """
    address as_made ask audio_seconds authorization before certificate certificates
    check_environment check_program client command device engine more program rust rustup evidence
    fetch fetch_program
    commit description directory domain health home host image incus key machine machine.script name
    names[0] noun.create noun.delete noun.edit noun.show nvidia_smi packages path pool port receive
    revision service stand_in start_seconds timeout trust type uid unit url user version volumes
    words writable
""".split()


@pytest.mark.parametrize("file", sorted((ROOT / "templates").rglob("*.j2")), ids=lambda f: f.name)
def test_what_a_template_inserts_is_quoted_or_inert(file: Path) -> None:
    for expression in re.findall(r"\{\{(.*?)\}\}", file.read_text(), re.DOTALL):
        value, *filters = (part.strip() for part in expression.split("|"))
        quoted = {"sh", "unit"} & {name.split("(")[0] for name in filters}
        literal = re.match(r"[\"(]", value) is not None
        assert quoted or literal or value.split(" ")[0] in INERT, f"{file}: {expression}"
