"""The workflows as documents: their schema, and what keeps a stranger's text away from a shell."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from declaration.source_files import ROOT
from tests.workflow import WORKFLOWS, read_workflow

NAMES = sorted(file.stem for file in WORKFLOWS.glob("*.yml"))


def steps(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def test_they_are_what_the_schema_asks_for() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema"]
    files = [str(WORKFLOWS / f"{name}.yml") for name in NAMES]
    done = subprocess.run(
        [*command, "vendor.github-workflows", *files], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert NAMES == ["drift", "preview", "production", "review", "staging"]


@pytest.mark.parametrize("name", NAMES)
def test_no_text_of_a_request_is_in_a_script(name: str) -> None:
    """An expression is put into the script before the shell reads it; a variable is not."""
    for step in steps(read_workflow(name)):
        assert "${{" not in step["run"], step["name"]


@pytest.mark.parametrize("name", NAMES)
def test_nobody_else_s_action_runs_and_the_token_may_do_little(name: str) -> None:
    workflow = read_workflow(name)
    assert all("uses" not in step for step in steps(workflow))
    may_write = {key for key, value in workflow["permissions"].items() if value == "write"}
    assert workflow["permissions"]["contents"] == "read"
    assert (
        may_write
        == {
            "drift": {"issues"},
            "preview": {"pull-requests"},
            "production": {"statuses"},
            "review": {"pull-requests"},
            "staging": {"statuses"},
        }[name]
    )


@pytest.mark.parametrize("name", NAMES)
def test_only_the_steps_that_need_the_token_have_it(name: str) -> None:
    for step in steps(read_workflow(name)):
        has = any("github.token" in str(value) for value in step.get("env", {}).values())
        needs = step["name"] == "Fetch" or "python3 -m forge" in step["run"]
        assert has == needs, step["name"]


def test_all_fetch_in_the_same_way() -> None:
    scripts = {steps(read_workflow(name))[0]["run"] for name in NAMES}
    assert len(scripts) == 1


def test_a_stranger_s_program_runs_in_the_sandbox_and_elsewhere() -> None:
    """What needs no approval has neither the host nor the state."""
    for name in NAMES:
        workflow = read_workflow(name)
        on_host = all(job["runs-on"] == "incus-stt" for job in workflow["jobs"].values())
        assert on_host == (name != "review")
        assert ("PULUMI_BACKEND_URL" in workflow["env"]) == on_host
    review = next(step for step in steps(read_workflow("review")) if step["name"] == "Review")
    assert review["env"]["SANDBOX"] == 1
    preview = read_workflow("preview")
    assert preview["on"] == {"pull_request_target": {"types": ["labeled"]}}
    assert preview["jobs"]["preview"]["if"] == "github.event.label.name == 'preview'"


def test_the_page_names_each() -> None:
    page = (ROOT / "docs" / "workflows.md").read_text()
    for name in NAMES:
        assert f"`{name}.yml`" in page
