"""Commands do with this project's plugins what they do with Pulumi's own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.plugins.conftest import Case

pytestmark = pytest.mark.seldom

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
        assert word not in case.pulumi("stack", "output", "--json")
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


def test_what_is_replaced_is_a_new_one_and_what_is_updated_is_not(case: Case) -> None:
    case.up({**A, "triggers": ["1"]})
    first = case.resources()["a"]["id"]
    case.up({**A, "triggers": ["1"], "stdin": "x"})
    assert case.resources()["a"]["id"] == first
    case.up({**A, "triggers": ["2"], "stdin": "x"})
    assert case.resources()["a"]["id"] != first


def test_the_state_holds_inputs_and_outputs(case: Case) -> None:
    case.up({**A, "stdin": "in", "environment": {"WORD": "hello"}})
    found = case.resources()["a"]
    inputs = {
        "addPreviousOutputInEnv": False,
        "create": "echo create a >> log; echo made a; cat",
        "delete": "echo delete a >> log",
        "environment": {"WORD": "hello"},
        "stdin": "in",
        "triggers": [],
        "update": "echo update a >> log; echo again a; cat",
    }
    assert found["inputs"] == inputs
    assert found["outputs"] == {**inputs, "stdout": "made a\nin", "stderr": ""}


def test_the_previous_output_is_not_there_at_first_nor_where_it_is_not_asked_for(
    case: Case,
) -> None:
    show = "echo ${PULUMI_COMMAND_STDOUT-none} ${PULUMI_COMMAND_STDERR-none} >> log"
    first = {"name": "a", "create": f"{show}; echo o; echo e >&2", "update": show, "delete": show}
    assert case.up({**first, "previous": True}) == ["none none"]
    assert case.up({**first, "previous": True, "stdin": "x"}) == ["o e"]
    assert case.up({**first, "previous": False, "stdin": "y"}) == ["none none"]
    case.up({**first, "previous": True, "stdin": "z"})
    assert case.up() == ["none none"]  # that update wrote nothing


@pytest.mark.parametrize(
    ("logging", "shown"),
    [
        (None, {"out-1", "err-1"}),
        ("stdoutAndStderr", {"out-1", "err-1"}),
        ("stdout", {"out-1"}),
        ("stderr", {"err-1"}),
        ("none", set()),
    ],
)
def test_logging_chooses_what_is_shown(case: Case, logging: str | None, shown: set[str]) -> None:
    write = "echo out-$((0+1)); echo err-$((0+1)) >&2"
    # Outputs of a stack are shown too, unless they are secret.
    case.up({"name": "a", "create": write, "logging": logging, "hidden": ["stdout"]})
    assert {word for word in ("out-1", "err-1") if word in case.said} == shown
    assert case.outputs("--show-secrets")["a"] == "out-1"
    assert case.resources()["a"]["outputs"]["stderr"] == "err-1"


def test_an_error_shows_command_and_output_and_never_stdin(case: Case) -> None:
    failing = "cat >/dev/null; echo said-out; echo said-err >&2; exit 7"
    bad = {"name": "a", "create": failing, "stdin": "hush-hush", "logging": "none"}
    case.up(bad, fails=True)
    assert f'exit status 7: running "{failing}":' in case.said
    assert "said-out" in case.said and "said-err" in case.said
    assert "hush-hush" not in case.said
    # Pulumi's own language host interrupts the program, and shows where that was.
    assert "Traceback" not in case.said or case.plugins == "official"
    assert case.resources() == {}


def test_what_cannot_start_is_an_error(case: Case) -> None:
    case.up({"name": "a", "interpreter": ["/no/such/program"]}, fails=True)
    assert "no such file or directory" in case.said.lower() and "/no/such/program" in case.said
    case.up({"name": "a", "dir": "/no/such/directory"}, fails=True)
    assert "no such file or directory" in case.said.lower() and "/no/such/directory" in case.said
    assert case.resources() == {}


def test_a_command_that_a_signal_ended_is_an_error(case: Case) -> None:
    case.up({"name": "a", "create": "kill -9 $$"}, fails=True)
    assert "signal: killed" in case.said


def test_a_program_that_fails_is_shown_where(case: Case) -> None:
    case.up({"name": "a", "raise": "it broke here"}, fails=True)
    assert "Program failed with an unhandled exception" in case.said
    assert "ValueError: it broke here" in case.said
    assert "__main__.py" in case.said


def test_interpreter_and_directory(case: Case) -> None:
    (case.root / "below").mkdir()
    entry = {
        "name": "a",
        "interpreter": ["/bin/sh", "-eu", "-c"],
        "dir": "below",
        "create": "pwd; echo $-",
    }
    case.up(entry)
    lines = case.resources()["a"]["outputs"]["stdout"].splitlines()
    assert lines[0] == str(case.root / "below")
    assert {"e", "u"} <= set(lines[1])


def test_large_input_and_output(case: Case) -> None:
    text = "0123456789" * 200_000
    case.up({"name": "a", "create": "cat; cat /dev/null", "stdin": text, "logging": "none"})
    assert case.resources()["a"]["outputs"]["stdout"] == text


def test_commands_run_at_once(case: Case) -> None:
    meet = "echo begin >> log; until [ $(grep -c begin log) = 6 ]; do sleep 0.1; done"
    case.up(*({"name": f"a{i}", "create": f"timeout 60 sh -c '{meet}'"} for i in range(6)))


def test_a_command_runs_no_longer_than_its_timeout(case: Case) -> None:
    case.up(
        {"name": "a", "create": "echo begun >> log; exec sleep 300", "timeout": "2s"}, fails=True
    )
    assert case.resources() == {}


def test_a_secret_input_keeps_the_outputs_out_of_sight(case: Case) -> None:
    case.up({**A, "stdin": "hush-hush", "secret": True, "logging": "none", "hidden": ["stdout"]})
    state = json.dumps(case.resources())
    assert "hush-hush" not in state
    assert "hush-hush" not in case.pulumi("stack", "output", "--json")


def test_local_run_reads_in_previews_too(case: Case) -> None:
    entry = {"name": "read", "run": "echo read >> log; echo found"}
    case.plan(entry)
    assert case.run("preview") == ["read"]
    assert case.run("up") == ["read"]
    assert case.outputs()["read"] == "found"


def test_a_local_run_that_fails_is_an_error(case: Case) -> None:
    case.plan({"name": "read", "run": "echo why >&2; exit 4"})
    case.run("preview", fails=True)
    assert "exit status 4" in case.said and "why" in case.said


def test_files_are_not_collected_and_that_is_said(case: Case) -> None:
    if case.plugins == "official":
        pytest.skip("Pulumi's own plugin collects them")
    case.up({**A, "assets": ["*.txt"]}, fails=True)
    assert "does not collect files" in case.said
    assert "pulumi plugin install resource command" in case.said


def wait_for(case: Case, line: str) -> None:
    deadline = time.monotonic() + 60
    log = case.root / "log"
    while time.monotonic() < deadline:
        if log.exists() and line in log.read_text():
            return
        time.sleep(0.05)
    pytest.fail(f"no line {line} in 60 s")


def test_ctrl_c_ends_an_up_cleanly(case: Case) -> None:
    case.plan(A, {**B, "create": "echo begin b >> log; exec sleep 300"}, C)
    up = case.start("up", "--yes", "--skip-preview")
    wait_for(case, "begin b")
    os.killpg(up.pid, signal.SIGINT)
    said, _ = up.communicate(timeout=60)
    assert up.returncode != 0
    assert "Traceback" not in said or case.plugins == "official", said
    assert "exited prematurely" not in said, said
    assert set(case.resources()) == {"a"}
    # What it cut off runs again; nothing is pending, and nothing is locked.
    assert case.up(A, B, C) == ["create b", "create c"]


def test_ctrl_c_ends_what_a_command_has_started(case: Case) -> None:
    if case.plugins == "official":
        pytest.skip("Pulumi's own plugin only kills the shell, and waits for the rest")
    case.plan({**A, "create": "sleep 300 & echo $! >> log; echo begun >> log; wait"})
    up = case.start("up", "--yes", "--skip-preview")
    wait_for(case, "begun")
    os.killpg(up.pid, signal.SIGINT)
    up.communicate(timeout=60)
    assert case.up(A) == ["create a"]


def test_ctrl_c_in_a_preview_ends_the_program(case: Case) -> None:
    case.plan({"name": "read", "run": "echo begin >> log; exec sleep 300"})
    preview = case.start("preview")
    wait_for(case, "begin")
    os.killpg(preview.pid, signal.SIGINT)
    said, _ = preview.communicate(timeout=60)
    assert preview.returncode != 0
    assert "Traceback" not in said or case.plugins == "official", said


def test_plugins_end_with_an_engine_that_was_killed(case: Case) -> None:
    if case.plugins == "official":
        pytest.skip("Pulumi's own end within five minutes")
    slow = "echo begin >> log; until [ -e go ]; do sleep 0.1; done; echo end >> log"
    case.plan({**A, "create": slow})
    up = case.start("up", "--yes", "--skip-preview")
    wait_for(case, "begin")
    os.killpg(up.pid, signal.SIGKILL)
    up.communicate(timeout=60)
    (case.root / "go").touch()
    wait_for(case, "end")  # what runs is not cut off
    deadline = time.monotonic() + 30
    while left := working_in(case.root):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def working_in(directory: Path) -> list[str]:
    """The processes that work in a directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cwd").readlink() == directory:
                found.append((process / "cmdline").read_text())
    return found
