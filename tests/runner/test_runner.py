"""The runner does with Commands what Pulumi does: every case runs with both, where both are.

A small program registers the Commands of ``plan.json``; each writes what it did into a log.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import json
import pulumi
from pulumi_command import local

made = {}
secret = pulumi.Config().get_secret("word")
for entry in json.load(open("plan.json")):
    name, within = entry["name"], [made[other] for other in entry.get("within", [])]
    stdin = entry.get("stdin")
    if entry.get("secret"):
        stdin = pulumi.Output.secret(stdin)
    if entry.get("from"):
        stdin = pulumi.Output.concat("after ", made[entry["from"]].stdout)
    made[name] = local.Command(
        name,
        create=entry.get("create", f"echo create {name} >> log; echo made {name}; cat"),
        update=entry.get("update", f"echo update {name} >> log; echo again {name}; cat"),
        delete=entry.get("delete", f"echo delete {name} >> log"),
        stdin=stdin,
        triggers=[*entry.get("triggers", []), *(other.id for other in within)],
        environment=entry.get("environment"),
        logging=entry.get("logging"),
        add_previous_output_in_env=entry.get("previous", False),
        opts=pulumi.ResourceOptions(
            depends_on=[made[other] for other in entry.get("needs", [])] + within,
            delete_before_replace=True,
            ignore_changes=entry.get("ignore"),
            additional_secret_outputs=entry.get("hidden"),
            deleted_with=made[entry["gone_with"]] if "gone_with" in entry else None,
            protect=entry.get("protect"),
            aliases=[pulumi.Alias(name=entry["formerly"])] if "formerly" in entry else None,
            retain_on_delete=entry.get("retain"),
        ),
    )
    pulumi.export(name, made[name].stdout)
made and pulumi.export("config", {
    key: pulumi.Config().get(key) for key in ("text", "number", "flag", "no", "object", "default")
})
"""
PROJECT = f"""name: cases
runtime: {{name: python, options: {{toolchain: pip, virtualenv: {ROOT / ".venv"}}}}}
stackConfigDir: stacks
backend: {{url: "file://./state"}}
config:
  cases:default: {{type: string, default: as declared}}
"""


@dataclass
class Case:
    """A throw-away project."""

    root: Path
    tool: str

    def call(self, verb: str, *words: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "PULUMI_CONFIG_PASSPHRASE": "x",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PYTHONPATH": str(ROOT),
        }
        if self.tool == "runner":
            command = [sys.executable, "-m", "runner", "--stack", "s", verb, *words]
        elif verb == "outputs":
            command = ["pulumi", "stack", "output", "--json", "--stack", "s", *words]
        else:
            yes = ["--yes", "--skip-preview"] if verb in ("up", "destroy") else []
            command = ["pulumi", verb, "--stack", "s", *yes, *words]
        return subprocess.run(
            command, cwd=self.root, env=environment, capture_output=True, text=True, check=False
        )

    def plan(self, *entries: dict[str, Any]) -> None:
        (self.root / "plan.json").write_text(json.dumps(entries))

    def run(self, verb: str, *words: str, fails: bool = False) -> list[str]:
        """Run a verb; what the Commands logged."""
        log = self.root / "log"
        log.write_text("")
        done = self.call(verb, *words)
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        self.said = done.stdout + done.stderr
        return log.read_text().splitlines()

    def up(
        self, *entries: dict[str, Any], words: Sequence[str] = (), fails: bool = False
    ) -> list[str]:
        self.plan(*entries)
        return self.run("up", *words, fails=fails)

    def outputs(self, *words: str) -> Any:
        return json.loads(self.call("outputs", *words).stdout)


@pytest.fixture(params=["runner", "cli"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    if request.param == "cli" and not shutil.which("pulumi"):
        pytest.skip("there is no Pulumi CLI on PATH")
    (tmp_path / "stacks").mkdir()
    (tmp_path / "state").mkdir()
    (tmp_path / "Pulumi.yaml").write_text(PROJECT)
    (tmp_path / "__main__.py").write_text(PROGRAM)
    made = Case(tmp_path, request.param)
    if request.param == "cli":
        environment = {**os.environ, "PULUMI_CONFIG_PASSPHRASE": "x"}
        subprocess.run(
            ["pulumi", "stack", "init", "s"], cwd=tmp_path, env=environment, check=True,
            capture_output=True,
        )  # fmt: skip
    return made


A, B, C = {"name": "a"}, {"name": "b", "needs": ["a"]}, {"name": "c", "needs": ["b"]}


def test_create_in_order_then_nothing(case: Case) -> None:
    assert case.up(A, B, C) == ["create a", "create b", "create c"]
    assert case.up(A, B, C) == []
    assert case.run("preview", "--expect-no-changes") == []
    assert {key: case.outputs()[key] for key in "abc"} == {
        "a": "made a",
        "b": "made b",
        "c": "made c",
    }


def test_a_preview_runs_nothing_and_tells(case: Case) -> None:
    case.plan(A, B)
    assert case.run("preview") == []
    assert case.run("preview", "--expect-no-changes", fails=True) == []
    assert case.run("up") == ["create a", "create b"]


def test_a_changed_input_updates(case: Case) -> None:
    case.up(A, B)
    assert case.up({**A, "stdin": "new"}, B) == ["update a"]
    assert case.outputs()["a"] == "again a\nnew"
    assert case.up({**A, "stdin": "new"}, B) == []
    assert case.up(A, B) == ["update a"]


def test_without_update_create_runs_again(case: Case) -> None:
    plain = {"name": "a", "update": None}
    case.up(plain)
    assert case.up({**plain, "stdin": "new"}) == ["create a"]


def test_what_uses_an_output_changes_with_it(case: Case) -> None:
    user = {"name": "b", "from": "a"}
    case.up(A, user)
    assert case.outputs()["b"] == "made b\nafter made a"
    assert case.up({**A, "stdin": "x"}, user) == ["update a", "update b"]


def test_changed_triggers_replace_and_delete_with_the_old_state(case: Case) -> None:
    old = {**A, "triggers": ["1"], "delete": "echo delete old $(cat) >> log", "stdin": "old"}
    case.up(old)
    new = {**A, "triggers": ["2"], "delete": "echo never >> log", "stdin": "new"}
    assert case.up(new) == ["delete old old", "create a"]
    assert case.up(new) == []


def test_what_is_within_is_deleted_before_and_made_after(case: Case) -> None:
    inner = {"name": "b", "within": ["a"]}
    innermost = {"name": "c", "within": ["b"]}
    beside = {"name": "d", "needs": ["a"]}
    case.up({**A, "triggers": ["1"]}, inner, innermost, beside)
    done = case.up({**A, "triggers": ["2"]}, inner, innermost, beside)
    assert done == ["delete c", "delete b", "delete a", "create a", "create b", "create c"]
    assert case.up({**A, "triggers": ["2"], "stdin": "x"}, inner, innermost, beside) == ["update a"]


def test_what_goes_with_another_is_not_deleted_by_itself(case: Case) -> None:
    inner = {"name": "b", "within": ["a"], "gone_with": "a"}
    case.up(A, inner)
    assert case.up(A) == ["delete b"]
    case.up(A, inner)
    assert case.run("destroy") == ["delete a"]


def test_what_is_no_longer_there_is_deleted_last(case: Case) -> None:
    case.up(A, B, C)
    assert case.up({**A, "stdin": "x"}) == ["update a", "delete c", "delete b"]


def test_destroy_goes_backwards(case: Case) -> None:
    case.up(A, B, C)
    assert case.run("destroy") == ["delete c", "delete b", "delete a"]
    assert case.run("destroy") == []
    assert case.up(A) == ["create a"]


def test_a_failed_create_records_nothing(case: Case) -> None:
    bad = {**B, "create": "echo try b >> log; echo it broke >&2; exit 3"}
    assert case.up(A, bad, C, fails=True) == ["create a", "try b"]
    assert "it broke" in case.said
    assert case.up(A, B, C) == ["create b", "create c"]


def test_what_is_named_is_replaced_and_its_dependents_follow(case: Case) -> None:
    follows = {"name": "b", "needs": ["a"], "from": "a"}
    stamp = {"name": "a", "create": "echo create a >> log; date +%N"}
    case.up(stamp, follows)
    again = case.up(stamp, follows, words=["--replace", "**a"])
    assert again == ["delete a", "create a", "update b"]
    assert case.up(stamp, follows) == []


def test_a_renamed_resource_is_the_same_one(case: Case) -> None:
    case.up(A, B)
    renamed = {**A, "name": "z", "formerly": "a", "update": "echo update z >> log"}
    assert case.up(renamed, {**B, "needs": ["z"]}) == ["update z"]
    assert case.up(renamed, {**B, "needs": ["z"]}) == []
    assert case.run("destroy") == ["delete b", "delete z"]


def test_a_renamed_resource_is_replaced_where_its_identity_changes(case: Case) -> None:
    a = {**A, "triggers": ["a"]}
    case.up(a, {"name": "b", "within": ["a"]})
    z = {"name": "z", "formerly": "a", "triggers": ["z"]}
    assert case.up(z, {"name": "b", "within": ["z"]}) == [
        *("delete b", "delete a", "create z", "create b"),
    ]
    assert case.up(z, {"name": "b", "within": ["z"]}) == []


def test_outputs_that_are_gone_go(case: Case) -> None:
    case.up(A, B)
    case.up(A)
    assert set(case.outputs()) == {"a", "config"}
    case.up()
    assert case.outputs() == {}


def test_a_failure_keeps_the_outputs(case: Case) -> None:
    case.up(A, B)
    case.up({**A, "stdin": "x"}, {**B, "stdin": "x", "update": "exit 3"}, fails=True)
    assert case.outputs()["b"] == "made b"


def test_a_failed_update_keeps_the_old_state(case: Case) -> None:
    case.up(A)
    bad = {**A, "stdin": "x", "update": "echo try a >> log; exit 3"}
    assert case.up(bad, fails=True) == ["try a"]
    assert case.up(bad, fails=True) == ["try a"]
    assert case.up(A) == []


def test_a_failed_delete_keeps_what_it_needs(case: Case) -> None:
    case.up(A, {**B, "delete": "echo try b >> log; exit 3"})
    assert case.run("destroy", fails=True) == ["try b"]
    assert case.up(A, B) == ["update b"]
    assert case.run("destroy") == ["delete b", "delete a"]


def test_secrets_are_masked_and_encrypted(case: Case) -> None:
    secret = {**A, "stdin": "hush-hush", "secret": True, "logging": "none", "hidden": ["stdout"]}
    case.up(secret, {**B, "hidden": ["stdout"], "create": "echo psst-psst"})
    files = [file.read_bytes() for file in (case.root / "state").rglob("*") if file.is_file()]
    assert "hush-hush" not in case.said
    for word in ("hush-hush", "psst-psst"):
        assert word not in case.call("outputs").stdout
    assert not any(b"hush-hush" in file for file in files)
    assert case.outputs("--show-secrets")["a"] == "made a\nhush-hush"
    assert case.outputs("--show-secrets")["b"] == "psst-psst"
    assert case.up({**secret, "stdin": "hush-hush!"}, {**B, "hidden": ["stdout"]}) != []
    assert "hush" not in case.said


def test_ignored_changes_keep_the_old_value(case: Case) -> None:
    case.up({**A, "stdin": "1", "ignore": ["stdin", "create"]})
    changed = {**A, "stdin": "2", "create": "echo never >> log", "ignore": ["stdin", "create"]}
    assert case.up(changed) == []
    assert case.up({**changed, "ignore": ["create"]}) == ["update a"]


def test_silent_commands_say_nothing(case: Case) -> None:
    loud = {"name": "a", "create": "echo loud-out; echo loud-err >&2"}
    case.up(loud, {"name": "b", "create": "echo quiet-out; echo quiet-err >&2", "logging": "none"})
    assert "loud-out" in case.said
    assert "loud-err" in case.said
    assert "quiet-err" not in case.said


def test_the_previous_output_is_there_where_it_is_asked_for(case: Case) -> None:
    asked = {**A, "previous": True, "update": "echo got $PULUMI_COMMAND_STDOUT >> log"}
    case.up(asked)
    assert case.up({**asked, "stdin": "x"}) == ["got made a"]


def test_environment_reaches_the_script(case: Case) -> None:
    assert case.up({**A, "create": "echo $WORD >> log", "environment": {"WORD": "hello"}}) == [
        "hello"
    ]


def test_a_target_alone_is_touched(case: Case) -> None:
    case.up(A, B)
    case.plan({**A, "stdin": "x"}, {**B, "stdin": "x"})
    assert case.run("up", "--target", "**::b") == ["update b"]
    assert case.run("up") == ["update a"]


def test_protected_resources_stay(case: Case) -> None:
    case.up({**A, "protect": True}, {**B, "protect": True})
    assert case.run("destroy", fails=True) == []
    assert case.up({**A, "protect": True}, fails=True) == []
    assert case.up(A, B) == []
    assert case.run("destroy") == ["delete b", "delete a"]


def test_retained_resources_are_forgotten(case: Case) -> None:
    case.up({**A, "retain": True})
    assert case.run("destroy") == []


def test_two_resources_of_one_name_are_refused(case: Case) -> None:
    case.up(A, A, fails=True)


def test_config_reaches_the_program_as_it_is_written(case: Case) -> None:
    file = case.root / "stacks" / "Pulumi.s.yaml"
    known = file.read_text() if file.exists() else ""
    file.write_text(
        f"{known}\nconfig:\n  cases:text: hello\n  cases:number: 8000\n  cases:flag: true\n"
        "  cases:no: no\n  cases:object: {a: [1, true, x], b: {c: 2}}\n"
    )
    case.up(A)
    found = case.outputs()["config"]
    assert json.loads(found.pop("object")) == {"a": [1, True, "x"], "b": {"c": 2}}
    assert found == {
        "text": "hello",
        "number": "8000",
        "flag": "true",
        "no": "no",
        "default": "as declared",
    }


def test_a_killed_run_converges(tmp_path: Path, case: Case) -> None:
    if case.tool == "cli":
        pytest.skip("Pulumi's own recovery (pending operations) is Pulumi's matter")
    slow = {**B, "create": "echo begin b >> log; sleep 1; echo end b >> log"}
    case.plan(A, slow)
    process = subprocess.Popen(
        [sys.executable, "-m", "runner", "--stack", "s", "up"],
        cwd=case.root,
        env={**os.environ, "PULUMI_CONFIG_PASSPHRASE": "x", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for _ in range(100):
        if (tmp_path / "log").exists() and "begin b" in (tmp_path / "log").read_text():
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(1.2)  # its script ends by itself
    assert case.run("up") == ["begin b", "end b"]
    assert case.run("up") == []


def test_two_runs_at_once_are_refused(case: Case) -> None:
    if case.tool == "cli":
        pytest.skip("Pulumi locks its own state")
    case.plan({**A, "create": "sleep 2"})
    environment = {**os.environ, "PULUMI_CONFIG_PASSPHRASE": "x", "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "runner", "--stack", "s", "up"]
    with subprocess.Popen(
        words, cwd=case.root, env=environment, stdout=subprocess.DEVNULL
    ) as first:
        while not (case.root / "state" / "runner" / "s.lock").exists():
            time.sleep(0.05)
        time.sleep(0.3)
        case.run("up", fails=True)
        assert "another run works on" in case.said
        assert first.wait() == 0


def test_a_wrong_passphrase_is_said(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    if case.tool == "cli":
        pytest.skip("Pulumi says it in its own words")
    case.up({**A, "stdin": "hush", "secret": True})
    words = [sys.executable, "-m", "runner", "--stack", "s", "up"]
    environment = {**os.environ, "PULUMI_CONFIG_PASSPHRASE": "y", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        words, cwd=case.root, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "the passphrase does not open the secrets" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_runner_has_at_most_300_lines_of_code() -> None:
    count = 0
    for file in sorted((ROOT / "runner").glob("*.py")):
        source = file.read_text()
        said: set[int] = set()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                said |= set(range(node.lineno, (node.end_lineno or 0) + 1))
        lines = enumerate(source.splitlines(), start=1)
        count += sum(
            bool(line.strip()) and not line.strip().startswith("#") and number not in said
            for number, line in lines
        )
    assert count <= 300, count
