"""Plain `pulumi` commands, as docs/pulumi.md describes them."""

from __future__ import annotations

import json

import pytest

from tests.plugins.conftest import PLUGINS, Case

pytestmark = pytest.mark.seldom

KEPT = ("id", "inputs", "outputs")
A, B = {"name": "a"}, {"name": "b", "needs": ["a"]}


def test_preview_diff_shows_the_changed_lines(case: Case) -> None:
    old = json.dumps({"variables": {"STT_MODEL_TTL": "300", "STT_PORT": "8000"}})
    case.up({**A, "stdin": old, "environment": {"WORD": "one"}})
    case.plan({**A, "stdin": old.replace("300", "600"), "environment": {"WORD": "two"}})
    assert case.run("preview", "--diff") == []
    assert 'STT_MODEL_TTL: "300" => "600"' in case.said
    assert 'WORD: "one" => "two"' in case.said
    assert "STT_PORT: " not in case.said or '=> "8000"' not in case.said


def test_preview_json_names_what_changes(case: Case) -> None:
    case.up({**A, "environment": {"WORD": "one"}, "triggers": ["1"]}, B)
    case.plan({**A, "environment": {"WORD": "two"}, "triggers": ["2"]}, B)
    steps = json.loads(case.pulumi("preview", "--json"))["steps"]
    (of_a,) = [step for step in steps if step["urn"].endswith("::a")]
    assert of_a["op"] == "replace"
    assert sorted(of_a["diffReasons"]) == ["environment", "triggers"]
    assert {path: diff["kind"] for path, diff in of_a["detailedDiff"].items()} == {
        "environment.WORD": "update",
        "triggers[0]": "update-replace",
    }


def test_an_up_with_its_preview_and_a_destroy_with_its_preview(case: Case) -> None:
    case.plan(A)
    case.pulumi("up", "--yes")
    assert "Previewing update" in case.said and "Updating" in case.said
    assert set(case.resources()) == {"a"}
    case.pulumi("destroy", "--yes")
    assert case.resources() == {}


def test_refresh_says_nothing_for_commands(case: Case) -> None:
    case.up(A)
    before = case.resources()["a"]
    assert case.run("refresh", "--expect-no-changes") == []
    after = case.resources()["a"]
    assert [after[key] for key in KEPT] == [before[key] for key in KEPT]


def test_stack_and_history(case: Case) -> None:
    case.up(A)
    case.up({**A, "stdin": "x"})
    assert "command:local:Command" in case.pulumi("stack")
    history = json.loads(case.pulumi("stack", "history", "--json"))
    assert [entry["resourceChanges"].get("update") for entry in history] == [1, None]
    assert {entry["result"] for entry in history} == {"succeeded"}


def test_the_state_can_be_exported_and_imported(case: Case) -> None:
    case.up(A, B)
    saved = case.pulumi("stack", "export")
    assert case.run("destroy") == ["delete b", "delete a"]
    case.pulumi("stack", "import", stdin=saved)
    assert case.run("preview", "--expect-no-changes") == []
    assert case.run("destroy") == ["delete b", "delete a"]


def test_a_secret_setting_reaches_the_command_and_nothing_else(case: Case) -> None:
    case.pulumi("config", "set", "--secret", "word", stdin="hush-hush")
    # Marked so that its output stays out of sight too.
    entry = {**A, "config": "word", "logging": "none", "hidden": ["stdout"]}
    case.up(entry)
    assert case.outputs("--show-secrets")["a"] == "made a\nhush-hush"
    case.plan({**entry, "environment": {"WORD": "x"}})
    for words in (["--diff"], ["--json"]):
        case.run("preview", *words)
        assert "hush-hush" not in case.said
    files = [f for name in ("state", "stacks") for f in (case.root / name).rglob("*")]
    assert not any(b"hush-hush" in file.read_bytes() for file in files if file.is_file())
    case.passphrase = "wrong"
    case.pulumi("preview", fails=True)
    assert "incorrect passphrase" in case.said


def test_two_runs_at_once_are_refused(case: Case) -> None:
    case.plan({**A, "create": "until [ -e go ]; do sleep 0.1; done"})
    first = case.start("up", "--yes", "--skip-preview")
    assert first.stdout
    while "creating" not in (line := first.stdout.readline()):
        assert line, "the first run ended"
    case.run("up", fails=True)
    assert "locked" in case.said
    (case.root / "go").touch()
    first.communicate(timeout=60)
    assert first.returncode == 0


@pytest.mark.skipif("official" not in PLUGINS, reason="STT_TEST_OFFICIAL_PLUGINS is not set")
def test_a_stack_goes_on_with_the_other_plugins(case: Case) -> None:
    entry = {**A, "stdin": "hush", "secret": True, "environment": {"WORD": "x"}, "triggers": ["1"]}
    case.up(entry, B)
    case.plugins = {"ours": "official", "official": "ours"}[case.plugins]
    assert case.run("preview", "--expect-no-changes") == []
    assert case.up({**entry, "triggers": ["2"]}, {**B, "stdin": "x"}) == [
        *("delete a", "create a", "update b"),
    ]
    assert case.run("destroy") == ["delete b", "delete a"]
