"""`make review` on a git repository with branches: the comment of a pull request."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from review.comment import LIMIT
from tests.e2e.project import Project, left_of, machine, request, run, tree, two_machines

DOMAIN, SUBNET = "stt-e2e-r", "10.213.61"
#: What a runner without Incus, state and secrets has.
NOTHING = {"OFFLINE": "1", "INCUS_SOCKET": "/nowhere", "PULUMI_CONFIG_PASSPHRASE": "wrong"}


def git(project: Project, *words: str) -> str:
    done = run("git", *words, cwd=project.root)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def commit(project: Project, text: str) -> str:
    """Everything as it is now; the commit's hash."""
    git(project, "add", "--all")
    git(project, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", text)
    return git(project, "rev-parse", "HEAD")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A stack that is up, in a repository whose branch main has it."""
    project = two_machines(tmp_path_factory.mktemp("review"), DOMAIN, SUBNET)
    git(project, "init", "--quiet", "--initial-branch", "main")
    (project.root / ".git" / "info" / "exclude").write_text(".venv\n")
    commit(project, "as it is")
    try:
        project.up()
        yield project
    finally:
        project.destroy()
    assert left_of(DOMAIN) == []


@pytest.fixture
def branch(repository: Project) -> Iterator[Project]:
    """A branch of its own; the checkout is on main again afterwards."""
    salt = (repository.root / "stacks" / "Pulumi.e2e.yaml").read_text()
    git(repository, "checkout", "--quiet", "-B", "change", "main")
    yield repository
    git(repository, "checkout", "--quiet", "--force", "main")
    settings, machines = repository.settings, repository.machines
    settings.pop("port", None)
    machines.setdefault("other", machine(cache=False))
    repository.write()
    (repository.root / "stacks" / "Pulumi.e2e.yaml").write_text(salt)


def comment(project: Project, base: str = "main", **environment: str) -> str:
    """The comment; nothing may be written for it, here, in the state or on the host."""
    before = tree(project.root)
    done = project.make("review", f"BASE={base}", **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert tree(project.root) == before
    assert len(done.stdout) <= LIMIT
    return html.unescape(done.stdout)


def test_a_commit_beside_itself_changes_nothing(repository: Project) -> None:
    said = comment(repository, "HEAD")
    assert "### <code>e2e</code>: nothing changes\n" in said
    assert "|---|" not in said
    assert "nothing changes" in comment(repository, "HEAD", **NOTHING)


def test_a_setting_of_the_service(branch: Project) -> None:
    branch.set(port=8100)
    commit(branch, "another port")
    for environment in ({}, NOTHING):
        said = comment(branch, **environment)
        assert ("Pulumi's own diff" in said) == (not environment)
        assert ": 1 service restarts, nothing is replaced\n" in said
        assert "| <code>stt:port</code> | <code>(default)</code> | <code>8100</code> |" in said
        start = f"| <code>{DOMAIN}/gpu-server"
        row = next(line for line in said.splitlines() if line.startswith(start))
        assert "<code>service</code> changed, <code>verify</code> changed" in row
        assert f"from then on; clients use <code>http://{SUBNET}.1:8100/v1</code> |" in row
    assert request(f"http://{SUBNET}.1:8000/health").status == 200  # as it was


def test_a_restart_is_as_long_as_the_last_one(branch: Project) -> None:
    """Of an engine that listens by itself; another key restarts it, too, and not by its step."""
    told = r"stt_server.* requests are refused meanwhile \((.*?)\)"
    key = "/etc/incus-stt/stt_server/api-key"
    branch.inside("sh", "-c", f"cp -p {key} /root/; echo another >{key}")
    try:
        (another_key,) = re.findall(told, comment(branch))
    finally:
        branch.inside("cp", "-p", "/root/api-key", key)
    branch.set(language="de")
    commit(branch, "another language")
    try:
        (language,) = re.findall(told, comment(branch))
        (nowhere,) = re.findall(told, comment(branch, **NOTHING))
    finally:
        branch.settings.pop("language")
    assert another_key == language and re.fullmatch(r"\d+\.\d s the last time", language)
    assert nowhere == "how long is not known"


def test_what_is_removed_and_what_drifted(branch: Project) -> None:
    del branch.machines["other"]
    branch.write()
    commit(branch, "one machine less")
    variable = "/etc/incus-stt/custom.env"
    branch.inside("sh", "-c", f"cp -p {variable} /root/; echo BY_HAND=1 >>{variable}")
    try:
        said = comment(branch)
    finally:
        branch.inside("cp", "-p", "/root/custom.env", variable)
    assert "**1 machine replaced or deleted**" in said
    assert f"- instance <code>{DOMAIN}/other/instance</code>\n" in said
    assert "**Changed on the host by hand; `up` reverts it:**" in said
    assert "BY_HAND" in said
    assert f"- instance <code>{DOMAIN}/other/instance</code>\n" in comment(branch, **NOTHING)


@pytest.mark.seldom
def test_a_wrong_setting_is_told_and_is_no_markup(branch: Project) -> None:
    branch.set(language="</pre><script>alert(1)</script>")
    commit(branch, "a wrong language")
    branch.settings.pop("language")
    for environment in ({}, NOTHING):
        done = branch.make("review", "BASE=main", **environment)
        assert done.returncode == 0, done.stderr
        assert "the preview fails" in done.stdout and "stt:language" in done.stdout
        assert "<script" not in done.stdout


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            ["language: no", "pool: fast"],
            [
                "| <code>stt:language</code> | <code>(default)</code> | <code>no</code> |",
                "**2 machines replaced or deleted**",
            ],
        ),
        (["webui: {adminEmail: me@example.com}"], ["cpu</code>: 1 service restarts, nothing"]),
        (["enabled: false"], ["**1 service removed**, 1 service restarts"]),
    ],
    ids=["language and pool", "webui", "enabled"],
)
def test_what_can_be_seen_without_a_host(
    branch: Project, settings: list[str], told: list[str]
) -> None:
    """Of the shipped stack cpu, whose base is where the branch began, not what main has since."""
    with (branch.root / "stacks" / "Pulumi.cpu.yaml").open("a") as file:
        file.writelines(f"\n  stt:{setting}\n" for setting in settings)
    commit(branch, ", ".join(settings))
    line = ("make", "-s", "review", "STACK=cpu", "BASE=main")
    done = run(*line, cwd=branch.root, env=branch.variables(**NOTHING))
    assert done.returncode == 0, done.stderr
    said = html.unescape(done.stdout)
    assert all(each in said for each in told), said
    assert "the preview fails" not in said


@pytest.mark.seldom
def test_what_a_program_sees_that_is_not_trusted(branch: Project) -> None:
    program = branch.root / "__main__.py"
    program.write_text(
        f'import os\nprint("SEEN", sorted(os.environ.values()))\n{program.read_text()}'.replace(
            "from __future__ import annotations\n", ""
        )
    )
    commit(branch, "a program that tells")
    said = comment(branch, SOME_TOKEN="token-of-the-runner", **NOTHING)
    assert "SEEN" in said and "token-of-the-runner" not in said


@pytest.mark.seldom
def test_a_settings_file_elsewhere_is_refused(branch: Project, tmp_path: Path) -> None:
    elsewhere = tmp_path / "Pulumi.e2e.yaml"
    elsewhere.write_text("config: {}\n")
    file = branch.root / "stacks" / "Pulumi.e2e.yaml"
    file.unlink()
    file.symlink_to(elsewhere)
    commit(branch, "a link")
    for environment in (NOTHING, {}):
        done = branch.make("review", "BASE=main", **environment)
        assert "is not a file of the commit" in html.unescape(done.stdout), done.stderr
        assert elsewhere.read_text() == "config: {}\n"
    file.unlink()


@pytest.mark.seldom
def test_what_main_did_meanwhile_is_not_the_branch_s(branch: Project) -> None:
    branch.set(port=8100)
    commit(branch, "another port")
    git(branch, "checkout", "--quiet", "-B", "later", "main")
    branch.settings.pop("port")
    branch.set(keepAlive="1h")
    commit(branch, "meanwhile")
    branch.settings.pop("keepAlive")
    git(branch, "checkout", "--quiet", "change")
    said = comment(branch, "later", **NOTHING)
    assert "stt:port" in said and "stt:keepAlive" not in said


def test_a_new_stack_is_compared_with_nothing(branch: Project) -> None:
    stacks = branch.root / "stacks"
    text = "\n".join(
        line
        for line in (stacks / "Pulumi.e2e.yaml").read_text().splitlines()
        if not line.startswith("encryptionsalt")
    )
    (stacks / "Pulumi.fresh.yaml").write_text(text)
    commit(branch, "another stack")
    line = ("make", "-s", "review", "STACK=fresh", "BASE=main")
    done = run(*line, cwd=branch.root, env=branch.variables(OFFLINE="1"))
    assert done.returncode == 0, done.stderr
    assert "the machine is made" in done.stdout


@pytest.mark.seldom
def test_a_commit_that_is_not_there_is_said(repository: Project, tmp_path: Path) -> None:
    for words in (("BASE=nowhere",), ("BASE=main", "HEAD=nowhere"), ("BASE=--output=nowhere",)):
        done = repository.make("review", *words)
        assert done.returncode != 0
        assert re.search("there is no commit '(--output=)?nowhere' here", done.stderr), done.stderr
    # The name of a branch is not this project's: in the environment make and the shell leave it be.
    made = tmp_path / "made"
    for name in (
        f"$(touch {made})",
        f"`touch {made}`",
        f'"; touch {made}; "',
        f"$(shell touch {made})",
    ):
        done = repository.make("review", BASE=name, HEAD="main")
        assert done.returncode != 0 and "there is no commit" in done.stderr
        assert not made.exists()
