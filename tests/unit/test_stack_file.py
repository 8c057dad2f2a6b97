"""A stack's file means the same to make, operations, bootstrap and the Pulumi program.

What Pulumi hands to a program is recorded here: Pulumi 3.259.0 ran a project with this
``Pulumi.yaml`` on each of these files, and its language host wrote down what it was given.
"""

from __future__ import annotations

import contextvars
import json
import shutil
from pathlib import Path
from typing import Any

import pulumi
import pytest

import bootstrap.host
from components.config import read_config
from declaration.problems import DeclarationError
from declaration.settings import parse_settings
from declaration.source_files import ROOT
from declaration.stack_file import (
    ENCRYPTED,
    read_stack_file,
    stack_directory,
    stack_names,
    typed,
)
from operations.stack import read_stack
from tests.unit.values import STACKS

#: Setting, value as it is written in the file, and the text that Pulumi hands on.
HANDED_ON: list[tuple[str, str, str]] = [
    *[("language", each, each) for each in ("no", "No", "yes", "on", "y", "tRUE", "1:30")],
    *[("language", each, "") for each in ("~", "null", "NULL", "")],
    ("language", '"no"', "no"),
    ("language", "!!str no", "no"),
    ("language", "!foo x", "x"),
    ("language", "'false'", "false"),
    ("language", "True", "true"),
    ("language", "fr # French", "fr"),
    ("language", "=", "="),
    ("language", "2026-11-24", "2026-11-24 00:00:00 +0000 UTC"),
    ("language", "2026-11-24T10:20:30Z", "2026-11-24 10:20:30 +0000 UTC"),
    ("language", "2026-11-24 10:20:30", "2026-11-24 10:20:30 +0000 UTC"),
    ("language", "2026-11-24 10:20:30.5 +01:00", "2026-11-24 10:20:30.5 +01:00"),
    ("model", "1e3", "1000"),
    ("model", "1.50", "1.5"),
    ("model", "1.0", "1"),
    ("model", "1e21", "1e+21"),
    ("model", "1e20", "100000000000000000000"),
    ("model", "1.5e-7", "1.5e-7"),
    ("model", "1e-6", "0.000001"),
    ("model", "-.5", "-0.5"),
    ("model", "1_0.5", "10.5"),
    ("model", "1e400", "1e400"),
    ("model", "-0.0", "0"),
    ("model", "123456789012345678901", "123456789012345680000"),
    ("model", "9007199254740993", "9007199254740993"),
    ("model", "08", "8"),
    ("model", "0777", "511"),
    ("model", "0o10", "8"),
    ("model", "0o8", "0o8"),
    ("model", "0x1F", "31"),
    ("model", "0b11", "3"),
    ("model", "1_000", "1000"),
    ("model", "+1", "1"),
    ("keepAlive", "5m", "5m"),
    ("keepAlive", "-1", "-1"),
    ("port", "8000", "8000"),
    ("port", '"8000"', "8000"),
    ("port", "08", "8"),
    ("port", "'08'", "08"),
    ("port", "'+8'", "+8"),
    ("port", "010", "8"),
    ("port", "1e3", "1000"),
    ("port", "8_000", "8000"),
    ("port", "8000.0", "8000"),
    ("port", "-5", "-5"),
    ("keepModels", "false", "false"),
    ("keepModels", '"false"', "false"),
    ("keepModels", "FALSE", "false"),
    ("ollama", "{port: 08}", '{"port":8}'),
    ("ollama", '{port: "8"}', '{"port":"8"}'),
    ("ollama", "{keepAlive: no}", '{"keepAlive":"no"}'),
    (
        "ollama",
        "{models: [no, yes, 1.0, 1e3, ~, 2026-11-24, 0x10, 08, 0o17, 1_000, true]}",
        '{"models":["no","yes",1,1000,null,"2026-11-24 00:00:00 +0000 UTC",16,8,15,1000,true]}',
    ),
    ("ollama", "{no: 2, true: 3, 1: 4}", '{"1":4,"no":2,"true":3}'),
    ("ollama", "{a: &x 1, b: *x}", '{"a":1,"b":1}'),
    ("ollama", "{<<: {port: 7}}", '{"port":7}'),
    ("ollama", "{t: 1e21, n: -0.0, f: 1.50}", '{"f":1.5,"n":0,"t":1e+21}'),
    ("nope", "08", "8"),
    ("nope", "true", "true"),
]
#: What Pulumi itself refuses, for its type; here the check of the settings does.
REFUSED: list[tuple[str, str]] = [
    *[("port", each) for each in ("abc", "true", "~", "''", "' 8000'", "'1e3'", "'0x10'", "1.5")],
    ("port", "18446744073709551616"),
    *[("keepModels", each) for each in ("no", "off", '"no"', "0", "~", "'True'", "'1'", "tRUE")],
    *[("ollama", each) for each in ("[1]", "~", '"{}"', "'{\"port\": 9}'")],
    *[("language", each) for each in ("[a]", "{a: b}", "{value: fr}")],
    ("apiKey", "{secure: 5}"),
]
#: A whole file, the line of the problem (0: none), and what is said.
WRONG: list[tuple[bytes, int, str]] = [
    (b"config:\n  stt:language: fr\n  stt:language: de\n", 3, "has the key stt:language twice"),
    (b"config:\n  stt:ollama: {port: 1, port: 2}\n", 2, "has the key port twice"),
    (b"config:\nconfig:\n", 2, "has the key config twice"),
    (b"config:\n  stt:model: .inf\n", 2, "is not a number that Pulumi takes"),
    (b"config:\n  stt:model: [a\n", 3, "is not valid YAML"),
    (b"config:\n  stt:model: a: b\n", 2, "is not valid YAML"),
    (b"config:\n  stt:model: *x\n", 2, "is not valid YAML: found undefined alias 'x'"),
    (b"config:\n  stt:ollama: &x {a: *x}\n", 2, "refers to itself"),
    (b"config:\n  stt:force: !!bool yes\n", 2, "has the tag !!bool"),
    (b"config:\n  stt:model: a\n  stt:pool: \xff\n", 3, "is not UTF-8 text"),
    (b"config:\n  stt:model: a\x07\n", 2, "special characters are not allowed"),
    (b"config:\n  stt:ollama: " + b"{a: " * 3000, 2, "is not valid YAML: more than 50 levels deep"),
    (b'config:\n  stt:model: "\\ud800"\n', 2, "an escape that names no character"),
    (b'config:\n  stt:model: "\\UFFFFFFFF"\n', 2, "an escape that names no character"),
    (b"config: [1]\n", 0, "config is [1], and has to be a mapping"),
    (b"[]\n", 0, "is [], and has to be a mapping"),
    (b"config: {1: x}\n", 0, '"1" is not a key. Write stt:NAME'),
]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(ROOT / "Pulumi.yaml", tmp_path)
    shutil.copy(STACKS / "infra.yml", tmp_path)
    (tmp_path / "stacks").mkdir()
    monkeypatch.setattr("operations.stack.ROOT", tmp_path)
    monkeypatch.setattr("bootstrap.host.ROOT", tmp_path)
    return tmp_path


def write(root: Path, content: str | bytes, stack: str = "t") -> None:
    data = content.encode() if isinstance(content, str) else content
    (root / "stacks" / f"Pulumi.{stack}.yaml").write_bytes(data)


def from_pulumi(config: dict[str, str], secrets: list[str] | None = None) -> dict[str, Any]:
    """What the program reads, where Pulumi hands this on."""

    def read() -> dict[str, Any]:
        pulumi.runtime.set_all_config(config, secrets or [])
        return read_config()

    return contextvars.copy_context().run(read)


@pytest.mark.parametrize(("key", "written", "handed_on"), HANDED_ON, ids=str)
def test_a_value_is_what_pulumi_hands_on(
    key: str, written: str, handed_on: str, root: Path
) -> None:
    write(root, f"config:\n  stt:{key}: {written}\n")
    here = read_stack_file(root, "t").values
    assert here == from_pulumi({f"stt:{key}": handed_on})
    # 1 == True == 1.0 in Python
    assert json.dumps(here, sort_keys=True) == json.dumps(
        from_pulumi({f"stt:{key}": handed_on}), sort_keys=True
    )


@pytest.mark.parametrize(("key", "written"), REFUSED, ids=str)
def test_what_pulumi_refuses_is_refused_here(key: str, written: str, root: Path) -> None:
    write(root, f"config:\n  stt:{key}: {written}\n")
    with pytest.raises(DeclarationError, match=f"stt:{key}"):
        parse_settings(read_stack_file(root, "t").plain_values())


@pytest.mark.parametrize(("content", "line", "said"), WRONG, ids=str)
def test_a_file_that_is_wrong_is_named_with_its_line(
    content: bytes, line: int, said: str, root: Path
) -> None:
    write(root, content)
    with pytest.raises(DeclarationError) as caught:
        read_stack_file(root, "t")
    [problem] = caught.value.problems
    assert problem.place == "stacks/Pulumi.t.yaml" + (f", line {line}" if line else "")
    assert said in problem.message
    assert "\n" not in str(problem)


def test_norwegian_is_the_same_to_all(root: Path) -> None:
    write(root, "config:\n  stt:language: no\n")
    assert read_stack("t").settings.language == "no"
    assert parse_settings(from_pulumi({"stt:language": "no"})).language == "no"


@pytest.mark.parametrize(
    ("content", "values"),
    [
        ("", {}),
        ("config:\n", {}),
        ("encryptionsalt: v1:x\n", {}),
        ("\ufeffconfig:\n  stt:model: a\n", {"model": "a"}),
        ("config:\n  stt:model: a\n---\nconfig:\n  stt:model: b\n", {"model": "a"}),
        # Pulumi adds the project's name to a key that has none, and drops an old `config:`.
        ("config:\n  language: fr\n  stt:config:model: a\n", {"language": "fr", "model": "a"}),
        ("config:\n  other:language: fr\n", {}),
    ],
    ids=str,
)
def test_a_whole_file(content: str, values: dict[str, Any], root: Path) -> None:
    write(root, content)
    assert read_stack_file(root, "t").values == values


def test_a_setting_that_is_there_in_two_forms_is_refused(root: Path) -> None:
    write(root, "config:\n  language: fr\n  stt:language: de\n")
    with pytest.raises(DeclarationError, match=r"stt:language: is in stacks/Pulumi\.t\.yaml twice"):
        read_stack_file(root, "t")


def test_a_secret_is_unknown_without_pulumi(root: Path) -> None:
    write(root, "config:\n  stt:port: 8123\n  stt:apiKey:\n    secure: v1:abc\n")
    file = read_stack_file(root, "t")
    assert file.values == {"port": 8123, "apiKey": ENCRYPTED}
    assert file.plain_values() == {"port": 8123}


def test_a_secret_within_a_group_is_unknown_without_pulumi(root: Path) -> None:
    write(root, "config:\n  stt:webui: {port: 3001, sttKey: {secure: v1:abc}}\n")
    assert read_stack_file(root, "t").plain_values() == {"webui": {"port": 3001}}


def test_a_secret_within_a_group_in_plain_text_is_refused_by_all_and_not_shown(root: Path) -> None:
    write(root, "config:\n  stt:webui: {port: 3001, sttKey: key-in-plain-text}\n")
    given = {"stt:webui": '{"port": 3001, "sttKey": "key-in-plain-text"}'}
    messages = []
    for read in (lambda: read_stack_file(root, "t"), lambda: from_pulumi(given)):
        with pytest.raises(DeclarationError, match=r"stt:webui\.sttKey: is in plain") as caught:
            read()
        messages.append(str(caught.value))
    assert messages[0] == messages[1] and "key-in" not in messages[0]
    assert "pulumi config set --secret --path stt:webui.sttKey" in messages[0]
    assert from_pulumi(given, ["stt:webui"])["webui"]["sttKey"] == "key-in-plain-text"


@pytest.mark.parametrize("value", ["{secure: v1:abc}", "{port: {secure: v1:abc}}"])
def test_another_setting_may_not_be_encrypted(value: str, root: Path) -> None:
    write(root, f"config:\n  stt:ollama: {value}\n")
    with pytest.raises(DeclarationError, match="stt:ollama: is encrypted"):
        read_stack_file(root, "t").plain_values()


@pytest.mark.parametrize("key", ["apiKey", "adminPassword"])
def test_a_secret_in_plain_text_is_refused_by_all_and_not_shown(key: str, root: Path) -> None:
    write(root, f"config:\n  stt:{key}: key-in-plain-text\n")
    messages = []
    for read in (
        lambda: read_stack_file(root, "t"),
        lambda: from_pulumi({f"stt:{key}": "key-in-plain-text"}),
    ):
        with pytest.raises(DeclarationError, match=f"stt:{key}: is in plain text") as caught:
            read()
        messages.append(str(caught.value))
    assert messages[0] == messages[1] and "key-in" not in messages[0]
    assert from_pulumi({f"stt:{key}": "x"}, [f"stt:{key}"]) == {key: "x"}


def test_a_stack_that_is_not_there_gets_the_names_of_those_that_are(root: Path) -> None:
    write(root, "", "one")
    write(root, "", "two.with.dots")
    assert stack_names(stack_directory(root)) == ["one", "two.with.dots"]
    with pytest.raises(DeclarationError, match="there is no stack on") as caught:
        read_stack_file(root, "on")
    assert "there is no stack on. Stacks: one, two.with.dots." in str(caught.value)
    with pytest.raises(DeclarationError, match="there is no stack"):
        read_stack_file(root, "../../x")


def test_the_stacks_are_where_pulumi_yaml_says(root: Path) -> None:
    project = root / "Pulumi.yaml"
    project.write_text(project.read_text().replace("stackConfigDir: stacks", "stackConfigDir: s"))
    (root / "s").mkdir()
    (root / "s" / "Pulumi.t.yaml").write_text("config:\n  stt:model: a\n")
    assert read_stack_file(root, "t").values == {"model": "a"}


@pytest.mark.parametrize("depth", [200, 900, 5000])
def test_what_pulumi_passes_on_may_be_nested_deeply(depth: int) -> None:
    """Plain `pulumi` reads a stack's file by itself: here it arrives as JSON."""
    text = "[" * depth + "]" * depth
    with pytest.raises(DeclarationError, match=r"stt:check\b.* is not allowed"):
        parse_settings({"check": typed(text, "object")})


def test_bootstrap_reads_what_the_program_reads(root: Path) -> None:
    write(root, 'config:\n  stt:pool: 08\n  stt:image: "images:debian/12"\n')
    settings = bootstrap.host.settings_of("t")
    assert (settings.pool, settings.image, settings.connection) == (
        *("8", "images:debian/12", "local"),
    )
    write(root, "config:\n  stt:image: -x\n")
    with pytest.raises(DeclarationError, match="stt:image"):
        bootstrap.host.settings_of("t")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("stt:port: abc", "stt:port"),
        ("stt:engine: wisper", "stt:engine"),
        ("stt:infra: other.yml", "stt:infra"),
        ("stt:clients: [phone, phone]", "stt:clients"),
    ],
)
def test_bootstrap_touches_nothing_before_all_is_checked(
    root: Path, content: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings that it does not need itself, and the topology, too."""

    def started(*words: object, **more: object) -> None:
        raise AssertionError(f"it ran {words}")

    monkeypatch.setattr("bootstrap.host.subprocess.run", started)
    monkeypatch.setattr("bootstrap.host.subprocess.Popen", started)
    write(root, f"config:\n  {content}\n")
    with pytest.raises(DeclarationError, match=said):
        bootstrap.host.main("t")
