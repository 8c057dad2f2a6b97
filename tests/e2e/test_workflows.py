"""The workflows, step by step: a git repository with branches, and a server like a forge's."""

from __future__ import annotations

import html
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.project import ROOT, Project, incus, left_of, light, run
from tests.forge_server import TOKEN, ForgeServer, forge_server
from tests.workflow import Job, Runner

pytestmark = pytest.mark.seldom

DOMAIN, SUBNET = "stt-e2e-z", "10.213.20"
STACKS = ("staging", "production")
SANDBOX = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("bwrap") is None, reason="a sandbox needs root and bwrap"
)
#: What a stranger's program tries. It tells in its error, which is in the comment.
MALICE = """
import os, socket
from pathlib import Path
found = [f"user {os.getuid()}", f"variables {sorted(os.environ)}"]
for place in ("/home", "/var", "/srv", "/run"):
    found.append(f"{place}: {os.path.exists(place)}")
for target in (("127.0.0.1", PORT), ("10.0.0.1", 80), ("1.1.1.1", 53)):
    try:
        socket.create_connection(target, 2)
        found.append(f"connected {target[1]}")
    except OSError as error:
        found.append(f"not connected {target[1]}")
for process in Path("/proc").glob("[0-9]*"):
    try:
        found.append("secret" if b"TOKEN" in (process / "environ").read_bytes() else "nothing")
    except OSError:
        found.append("nothing")
for file in ("CHECKOUT/.git/config", "STATE"):
    found.append(f"file {Path(file).exists()}")
try:
    Path("CHECKOUT/.venv/made").write_text("x")
    found.append("written")
except OSError:
    found.append("not written")
raise SystemExit(" | ".join(found) + " </pre><img src=x> @everyone")
"""


@dataclass
class House:
    """A repository on a forge, the runner on its Incus host, and what the forge was told."""

    project: Project
    origin: Path
    runner: Runner
    forge: ForgeServer

    @property
    def state(self) -> dict[str, str]:
        """Where the stacks' state is, and their passphrase."""
        place = self.origin.parents[2]
        return {
            "PULUMI_BACKEND_URL": f"file://{place / 'state'}",
            "PULUMI_CONFIG_PASSPHRASE_FILE": str(place / "passphrase"),
        }

    def git(self, *words: str) -> str:
        done = run("git", *words, cwd=self.project.root)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def commit(self, text: str) -> str:
        """All that there is; the hash."""
        self.git("add", "--all")
        self.git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", text)
        return self.git("rev-parse", "HEAD")

    def set(self, stack: str, **settings: Any) -> None:
        """Settings in a stack's file."""
        file = self.project.root / "stacks" / f"Pulumi.{stack}.yaml"
        data = yaml.safe_load(file.read_text())
        data["config"] |= {f"stt:{key}": value for key, value in settings.items()}
        file.write_text(yaml.safe_dump(data))

    def push(self) -> str:
        """What is checked out becomes the main branch."""
        head = self.git("rev-parse", "HEAD")
        self.git("push", "--quiet", "--force", str(self.origin), "HEAD:refs/heads/main")
        return head

    def request(self, number: int = 7) -> dict[str, Any]:
        """A pull request of what is checked out, as an event has it."""
        self.git("push", "--quiet", "--force", str(self.origin), f"HEAD:refs/pull/{number}/head")
        base = run("git", "rev-parse", "main", cwd=self.origin).stdout.strip()
        head = {"sha": self.git("rev-parse", "HEAD"), "ref": "$(touch x)"}
        return {"number": number, "base": {"sha": base, "ref": "main"}, "head": head}

    def run(
        self, name: str, *, inputs: dict[str, str] | None = None, **event: dict[str, Any]
    ) -> Job:
        """A workflow, started by an event."""
        main = run("git", "rev-parse", "main", cwd=self.origin).stdout.strip()
        github = {
            "server_url": f"file://{self.origin.parents[1]}",
            "repository": "owner/repo",
            "api_url": self.forge.url,
            "token": TOKEN,
            "sha": main,
            "event": {"repository": {"default_branch": "main"}, **event},
        }
        done = self.runner.run(name, github=github, vars=self.state, inputs=inputs or {})
        assert TOKEN not in done.said
        return done

    def comments(self, number: int = 7) -> dict[str, str]:
        """The text of each stack's comment; there is one of each."""
        bodies = [each["body"] for each in self.forge.comments.get(number, [])]
        found = {body.partition("review: ")[2].partition(" ")[0]: body for body in bodies}
        assert len(found) == len(bodies)
        return {stack: html.unescape(body) for stack, body in found.items()}


@pytest.fixture(scope="module", params=["forgejo"])
def house(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    place = tmp_path_factory.mktemp("house")
    (place / "operator").mkdir()
    project = Project(place / "operator", DOMAIN, SUBNET, environments=list(reversed(STACKS)))
    light(project)
    (project.root / "stacks" / "Pulumi.e2e.yaml").unlink()
    for stack in STACKS:
        settings = {**project.settings, "environment": stack}
        config = {f"stt:{key}": value for key, value in settings.items()}
        (project.root / f"stacks/Pulumi.{stack}.yaml").write_text(
            yaml.safe_dump({"config": config})
        )
    origin = place / "server" / "owner" / "repo"
    origin.mkdir(parents=True)
    for directory in ("state", "runner", "temporary"):
        (place / directory).mkdir()
    (place / "passphrase").write_text("a passphrase\n")
    (place / "runner" / ".venv").symlink_to(ROOT / ".venv")
    run("git", "init", "--quiet", "--bare", "--initial-branch", "main", cwd=origin)
    runner = Runner(place / "runner", place / "temporary", project.variables())
    with forge_server(request.param) as forge:
        made = House(project, origin, runner, forge)
        made.git("init", "--quiet", "--initial-branch", "main")
        (project.root / ".git" / "info" / "exclude").write_text(".venv\n")
        made.commit("as it is")
        made.push()
        try:
            yield made
        finally:
            for stack in STACKS:
                done = run(
                    *("make", "-s", "destroy", f"STACK={stack}", "ARGS=--yes"),
                    cwd=place / "runner",
                    env=project.variables(**made.state),
                )
                assert done.returncode == 0, done.stdout + done.stderr
    assert left_of(DOMAIN) == []


def test_a_merge_goes_to_staging_and_by_a_click_to_production(house: House) -> None:
    first = house.push()
    refused = house.run("production")
    assert refused.failed == "Check" and "is not verified on staging" in refused.said
    assert "Up" not in refused.ran

    done = house.run("staging")
    assert not done.failed, done.said
    states = [each["status"] for each in house.forge.statuses[first]]
    assert states == ["success", "pending"]
    assert run("incus", "project", "show", DOMAIN).returncode != 0  # production's

    done = house.run("production", inputs={"commit": first})
    assert not done.failed, done.said
    assert done.ran == ["Fetch", "Check", "Up"]
    assert house.forge.statuses[first][0]["context"] == "incus-stt: production"

    house.set("staging", model="nothing-like-it", quantization="none")
    second = house.commit("cannot work")
    house.push()
    done = house.run("staging")
    assert done.failed == "Up" and done.ran[-1] == "Note the failure"
    assert house.forge.statuses[second][0]["status"] == "failure"
    assert "it says failure" in house.run("production").said
    house.git("reset", "--quiet", "--hard", first)
    house.push()

    stranger = "0" * 40
    assert house.run("production", inputs={"commit": stranger}).failed == "Fetch"


@SANDBOX
def test_a_request_gets_a_comment_that_is_written_anew(house: House) -> None:
    house.git("checkout", "--quiet", "-B", "change", "main")
    house.set("production", port=8100)
    house.commit("another port")
    done = house.run("review", pull_request=house.request())
    assert not done.failed, done.said
    said = house.comments()
    assert "nothing changes" in said["staging"] and "8100" in said["production"]
    assert "without the host" in said["production"]
    house.set("production", port=8200)
    house.commit("still another")
    done = house.run("review", pull_request=house.request())
    assert not done.failed, done.said
    assert "8200" in house.comments()["production"]
    assert "8100" not in house.comments()["production"]


@SANDBOX
def test_a_stranger_s_program_finds_nothing_and_its_words_are_no_markup(house: House) -> None:
    house.git("checkout", "--quiet", "-B", "malice", "main")
    port = house.forge.url.rpartition(":")[2].partition("/")[0]
    script = (
        MALICE.replace("PORT", port)
        .replace("CHECKOUT", str(house.runner.workspace))
        .replace("STATE", str(house.origin.parents[2] / "passphrase"))
    )
    (house.project.root / "__main__.py").write_text(script)
    (house.project.root / "Makefile").write_text("review:\n\techo taken >&2; exit 1\n")
    shutil.rmtree(house.project.root / "review")
    shutil.rmtree(house.project.root / "forge")
    house.commit("a gift")
    done = house.run("review", pull_request=house.request(8))
    assert not done.failed, done.said
    assert "taken" not in done.said
    raw = next(each["body"] for each in house.forge.comments[8])
    assert "<img" not in raw and raw.rstrip().endswith("@everyone</pre>")  # no forge looks in there
    said = house.comments(8)["production"]
    told = said.partition("user 65534")[2]
    assert "not connected 80 | not connected 53" in told and " | connected" not in told
    assert TOKEN not in said and "FORGE_TOKEN" not in told and "| secret" not in told
    assert "/home: False | /var: False | /srv: False | /run: False" in told
    assert "file False | file False | not written" in told
    house.git("checkout", "--quiet", "--force", "main")


def test_the_true_preview_comes_with_the_label(house: House) -> None:
    """As any workflow on the host, it goes on from what `staging` and `production` have made."""
    house.git("checkout", "--quiet", "-B", "change-2", "main")
    house.set("staging", port=8300)
    house.commit("another port of staging")
    event = house.request(9)
    assert house.run("preview", pull_request=event, label={"name": "bug"}).skipped
    done = house.run("preview", pull_request=event, label={"name": "preview"})
    assert not done.failed, done.said
    said = house.comments(9)
    assert "Pulumi's own diff" in said["staging"] and "8300" in said["staging"]
    assert "nothing changes" in said["production"]
    house.git("checkout", "--quiet", "--force", "main")


def test_drift_opens_an_issue_and_closes_it(house: House) -> None:
    words = ("exec", "gpu-server", "--project", f"{DOMAIN}-staging", "--", "sh", "-c")
    incus(
        *words, "cp -p /etc/incus-stt/custom.env /root/; echo BY_HAND=1 >>/etc/incus-stt/custom.env"
    )
    done = house.run("drift")
    assert not done.failed, done.said
    (issue,) = house.forge.issues
    assert issue["title"].startswith("Drift on staging: 1 difference")
    assert "BY_HAND" in issue["body"]
    incus(*words, "cp -p /root/custom.env /etc/incus-stt/custom.env")
    done = house.run("drift")
    assert not done.failed and issue["state"] == "closed", done.said
