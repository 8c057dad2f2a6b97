"""What is generated from the code; the schema and the tables of settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from pydantic import Field

from declaration.describe import describe
from declaration.field_types import Flag, Port, StrictModel, Text, setting
from declaration.generated import COMMAND, joined, page, stale
from declaration.settings import Settings, parse_settings
from declaration.source_files import ROOT
from engines import ENGINES
from roles.document import parts
from stack.document import full_tables, schema, settings


class Group(StrictModel):
    """A group of the test's."""

    port: Port = setting(1, "A port")
    names: list[Text] = setting(["a"], "Names", allowed="a list")


class Model(StrictModel):
    """Settings of the test's."""

    flag: Flag = setting(True, "A flag")
    text: Text | None = setting(None, "A text", allowed="any | text")
    key: Text = setting("", "A key", allowed="8 characters", secret=True)
    group: Group = setting(Group(), "A group")


def test_what_is_generated_is_what_the_code_says() -> None:
    assert not stale(parts()), f"{', '.join(stale(parts()))}: stale. Run: {COMMAND}"


def test_an_edit_by_hand_is_stale_and_is_mended(tmp_path: Path) -> None:
    for name in parts():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text())
    assert stale(parts(), tmp_path) == {}
    file = tmp_path / "Pulumi.yaml"
    file.write_text(file.read_text().replace("default: 8000", "default: 8001"))
    assert stale(parts(), tmp_path) == {"Pulumi.yaml": (ROOT / "Pulumi.yaml").read_text()}


def test_a_file_without_its_markers_is_said() -> None:
    with pytest.raises(ValueError, match=r"x\.md needs these lines once:\n<!-- a: begin .* -->"):
        page("x.md", "text\n", {"a": "new"})
    begin, end = f"<!-- a: begin (generated, {COMMAND}) -->", "<!-- a: end -->"
    there = f"before\n{begin}\nold\n{end}\nafter\n"
    assert page("x.md", there, {"a": "new"}) == there.replace("old", "new")
    with pytest.raises(ValueError, match="once"):
        page("x.md", there * 2, {"a": "new"})


def test_two_may_have_parts_of_one_file() -> None:
    assert joined({"x": {"a": "1"}}, {"y": {"a": "2"}, "x": {"b": "3"}}) == {
        "x": {"a": "1", "b": "3"},
        "y": {"a": "2"},
    }


def test_the_types_are_pulumi_s() -> None:
    described = {each.key: each for each in describe(Model)}
    assert [each.kind for each in described.values()] == [
        *("boolean", "string", "string", "object", "integer", "array")
    ]
    assert described["group.port"].allowed == "1 to 65535"
    assert described["flag"].allowed == "`true`, `false`"
    assert (described["key"].secret, described["flag"].secret) == (True, False)
    config = yaml.safe_load(schema(described.values()))["config"]
    assert list(config) == ["stt:flag", "stt:text", "stt:key", "stt:group"]
    assert config["stt:group"] == {
        "type": "object",
        "default": {},
        "description": "A group. Allowed: an object with the keys port, names",
    }


def test_a_table_has_every_key_of_a_group() -> None:
    text = full_tables(describe(Model))
    assert "| `stt:text` | not set | any \\| text | A text |" in text
    assert "### `stt:group`" in text
    assert '| `stt:group.names` | `["a"]` | a list | Names |' in text
    assert "pulumi config set --secret stt:key" in text


def test_a_field_has_to_say_what_it_means_and_allows() -> None:
    class Silent(StrictModel):
        text: Text = setting("", "A text")

    class Bare(StrictModel):
        flag: Flag = False

    class Strange(StrictModel):
        number: Annotated[float, Field(gt=0)] = setting(1.0, "A number", allowed="a number")

    for model in (Silent, Bare):
        with pytest.raises(ValueError, match="say in its setting"):
            list(describe(model))
    with pytest.raises(TypeError, match="number: <class 'float'> has no type"):
        list(describe(Strange))


def test_every_setting_is_in_every_document() -> None:
    documented = (ROOT / "docs" / "settings.md").read_text()
    for each in settings():
        assert f"| `stt:{each.key}` |" in documented, each.key


def test_the_defaults_of_the_schema_are_those_of_the_fields() -> None:
    """Pulumi puts the schema's defaults into the configuration; other readers the fields'."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())["config"]
    defaults = {key.removeprefix("stt:"): item["default"] for key, item in config.items()}
    assert set(defaults) == set(Settings.model_fields)
    assert parse_settings(defaults) == parse_settings({})


def test_the_engines_are_named() -> None:
    [engine] = [each for each in settings() if each.key == "engine"]
    assert engine.allowed == ", ".join(f"`{name}`" for name in ENGINES)
