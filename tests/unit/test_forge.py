"""The forge's part: one comment for each stack, commit statuses, one issue on drift."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator

import pytest

from forge.__main__ import main
from forge.api import ForgeError, read_forge
from tests.forge_server import TOKEN, ForgeServer, forge_server

MARKER = "<!-- incus-stt review: gpu -->"
COMMIT = "0123456789" * 4
Run = Callable[..., str]


@pytest.fixture(params=["github", "forgejo", "gitea"])
def forge(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[ForgeServer]:
    with forge_server(request.param) as server:
        monkeypatch.setenv("GITHUB_API_URL", server.url)
        monkeypatch.setenv("GITHUB_REPOSITORY", "owner/repo")
        monkeypatch.setenv("FORGE_TOKEN", TOKEN)
        monkeypatch.delenv("FORGE_USER", raising=False)
        yield server


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*words: str, text: str = "") -> str:
        monkeypatch.setattr(sys, "argv", ["forge", *words])
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        main()
        return capsys.readouterr().err

    return run


def test_a_comment_is_written_once_and_then_in_place(forge: ForgeServer, run: Run) -> None:
    for number in range(120):  # more than a page
        forge.add_comment(7, f"talk {number}", "someone")
    run("comment", "7", text=f"{MARKER}\nfirst")
    run("comment", "7", text="<!-- incus-stt review: dev -->\nanother stack's")
    run("comment", "7", text=f"{MARKER}\nsecond")
    bodies = [each["body"] for each in forge.comments[7] if "incus-stt" in each["body"]]
    assert bodies == [f"{MARKER}\nsecond", "<!-- incus-stt review: dev -->\nanother stack's"]


def test_somebody_else_s_comment_is_not_ours_whatever_it_says(
    forge: ForgeServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who wrote it could change it afterwards."""
    theirs = forge.add_comment(7, f"{MARKER}\nnothing changes", "mallory")
    run("comment", "7", text=f"{MARKER}\nall is deleted")
    assert theirs["body"].endswith("nothing changes") and len(forge.comments[7]) == 2
    monkeypatch.setenv("FORGE_USER", "house-bot")
    forge.me = "house-bot"
    for text in ("one", "two"):
        run("comment", "8", text=f"{MARKER}\n{text}")
    assert [each["body"] for each in forge.comments[8]] == [f"{MARKER}\ntwo"]


@pytest.mark.parametrize("text", ["", "words", f"words\n{MARKER}", f"{MARKER}\n" + "x" * 70_000])
def test_only_a_review_is_posted(forge: ForgeServer, run: Run, text: str) -> None:
    with pytest.raises(SystemExit, match="not a comment of `make review`"):
        run("comment", "7", text=text)
    assert not forge.comments


def test_the_newest_status_counts(forge: ForgeServer, run: Run) -> None:
    with pytest.raises(SystemExit, match="not verified on staging: it says nothing"):
        run("verified", "staging", COMMIT)
    run("status", "staging", COMMIT, "pending")
    with pytest.raises(SystemExit, match="it says pending"):
        run("verified", "staging", COMMIT)
    run("status", "staging", COMMIT, "success")
    assert "is verified on staging" in run("verified", "staging", COMMIT)
    with pytest.raises(SystemExit, match="not verified on production"):
        run("verified", "production", COMMIT)
    run("status", "staging", COMMIT, "failure")
    with pytest.raises(SystemExit, match="it says failure"):
        run("verified", "staging", COMMIT)


def test_drift_has_one_issue(forge: ForgeServer, run: Run) -> None:
    forge.add_issue("mine", "<!-- incus-stt drift: gpu -->\nnot yours", "mallory")
    forge.add_issue("a request", "<!-- incus-stt drift: gpu -->", pull_request={"url": "x"})
    assert "no drift" in run("drift", "gpu", text="\n")
    before = len(forge.issues)
    run("drift", "gpu", text="a: 1 -> 2\n")
    run("drift", "gpu", text="a: 1 -> 2\nb: ``` @everyone <img src=x>\n")
    assert len(forge.issues) == before + 1
    made = forge.issues[-1]
    assert made["title"] == "Drift on gpu: 2 differences"
    assert "\n````text\na: 1 -> 2\nb: ``` @everyone <img src=x>\n````\n" in made["body"]
    run("drift", "gpu", text="")
    assert made["state"] == "closed" and len(forge.comments[made["number"]]) == 1
    run("drift", "gpu", text="a: 1 -> 2")
    assert len(forge.issues) == before + 2


def test_what_the_forge_refuses_is_said_without_the_token(
    forge: ForgeServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORGE_TOKEN", "wrong-token")
    with pytest.raises(SystemExit) as refused:
        run("status", "gpu", COMMIT, "success")
    assert "status 401. May the job's token do this" in str(refused.value)
    assert "wrong-token" not in str(refused.value)


@pytest.mark.parametrize(
    "words", [("status", "a b", COMMIT, "success"), ("verified", "gpu", "main")]
)
def test_words_that_cannot_be_right_are_refused(run: Run, words: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit):
        run(*words)


def test_outside_of_a_workflow_it_says_so() -> None:
    with pytest.raises(ForgeError, match="GITHUB_API_URL is not set"):
        read_forge({})
    full = {"GITHUB_API_URL": "x", "FORGE_TOKEN": "x", "GITHUB_REPOSITORY": "a/b/c"}
    with pytest.raises(ForgeError, match="allowed: OWNER/NAME"):
        read_forge(full)
