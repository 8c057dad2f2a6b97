"""docs/team.md on a real PostgreSQL: two operators, each with a checkout and a home."""

from __future__ import annotations

import copy
import html
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.postgresql import PASSWORD, PROGRAMS, PostgreSQL, postgresql
from tests.e2e.project import ROOT, STACK, Project, Running, left_of, light, run, tree

pytestmark = [
    pytest.mark.seldom,
    pytest.mark.skipif(
        not PROGRAMS, reason="there is no PostgreSQL: bootstrap/tests.sh installs it"
    ),
]

DOMAIN, SUBNET = "stt-e2e-a", "10.213.62"
FILE = "file://./state?metadata=skip"
#: The passphrase that the team has handed over.
PASSPHRASE = "a-passphrase-of-the-tests"
LOCK = "/locks/organization/stt/e2e/"
MARKER = "/srv/models/kept"


def git(project: Project, *words: str) -> None:
    done = run("git", "-c", "user.name=a", "-c", "user.email=a@b", *words, cwd=project.root)
    assert done.returncode == 0, done.stderr


def commit(project: Project) -> None:
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--allow-empty", "--message", "as it is now")


def exclude(project: Project) -> None:
    """Keep out of git what only tests have in a checkout."""
    (project.root / ".git" / "info" / "exclude").write_text(".venv\n*.log\n")


def use_backend(project: Project, url: str) -> None:
    """Name a backend in Pulumi.yaml, where a team does."""
    file = project.root / "Pulumi.yaml"
    text, found = re.subn(r"(?<=\n  url: ).*", lambda _: url, file.read_text())
    assert found == 1
    file.write_text(text)


def give_passphrase(project: Project, passphrase: str = PASSPHRASE) -> None:
    place = project.root / "state" / "passphrase"
    place.parent.mkdir(exist_ok=True)
    place.write_text(passphrase)


def at_home(database: PostgreSQL, home: Path) -> dict[str, str]:
    """An operator's environment: a home with what the database asks for, and nothing else."""
    home.mkdir()
    database.login(home)
    own = {"XDG_CACHE_HOME": ".cache", "INCUS_CONF": ".config/incus"}
    shared = {name: os.environ.get(name) or str(Path.home() / at) for name, at in own.items()}
    return {**shared, "HOME": str(home)}


@pytest.fixture(scope="module")
def database() -> Iterator[PostgreSQL]:
    with postgresql() as server:
        yield server


@pytest.fixture(scope="module")
def anna(database: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The first operator; the project is in git, and its Pulumi.yaml names the database."""
    place = tmp_path_factory.mktemp("team")
    project = Project(place / "anna", DOMAIN, SUBNET)
    light(project)
    use_backend(project, database.url)
    git(project, "init", "--quiet", "--initial-branch", "main")
    exclude(project)
    commit(project)
    project.environment = at_home(database, place / "anna's home")
    yield project
    said(project.pulumi("destroy"))
    assert left_of(DOMAIN) == []


@pytest.fixture(scope="module")
def ben(anna: Project, database: PostgreSQL) -> Project:
    """The second: a clone, with the passphrase that he was given."""
    project = copy.copy(anna)
    project.root = anna.root.with_name("ben")
    git(anna, "clone", "--quiet", str(anna.root), str(project.root))
    (project.root / ".venv").symlink_to(ROOT / ".venv")
    exclude(project)
    project.environment = at_home(database, anna.root.with_name("ben's home"))
    return project


def said(done: subprocess.CompletedProcess[str]) -> str:
    """All that a command said; it has to have succeeded, and may not tell the password."""
    text = html.unescape(done.stdout + done.stderr)
    assert done.returncode == 0, text
    assert PASSWORD not in text and PASSPHRASE not in text
    return text


def refused(done: subprocess.CompletedProcess[str], *sentences: str) -> None:
    text = done.stdout + done.stderr
    assert done.returncode != 0, text
    assert PASSWORD not in text
    for sentence in sentences:
        assert sentence in text, text


@contextmanager
def running(project: Project, database: PostgreSQL) -> Iterator[Running]:
    """An `up` that stands still, with the lock; killed at the end, if it is still there."""
    up = project.start_up()
    while not database.rows(LOCK):
        assert up.process.poll() is None, up.said
        time.sleep(0.02)
    up.signal(signal.SIGSTOP)
    try:
        yield up
    finally:
        if up.process.poll() is None:
            up.signal(signal.SIGKILL)
            up.end()


def blocks(heading: str) -> list[str]:
    """The commands of a part of docs/team.md."""
    page = (ROOT / "docs" / "team.md").read_text()
    part = page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^ *```(?:sh|sql)\n(.*?)^ *```", part, re.DOTALL | re.MULTILINE)


def with_names(commands: str, **names: str) -> str:
    """Documented commands, with the stack of the tests and what else is another here."""
    for name, own in {**names, "production": STACK}.items():
        commands = commands.replace(name, own)
    return commands


def follow(project: Project, *commands: str, text: str = "", **names: str) -> str:
    """Type documented commands in one shell."""
    script = "set -eu\n" + with_names("".join(commands), **names)
    done = run("sh", "-c", script, cwd=project.root, env=project.variables(), input=text)
    return said(done)


def files(project: Project) -> set[tuple[str, tuple[int, int]]]:
    """The files of a checkout; git brings its own up to date by itself."""
    return {each for each in tree(project.root).items() if "/.git/" not in each[0]}


def key(project: Project) -> str:
    done = project.pulumi("outputs", "--show-secrets")
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["stt_api_key"])


def unchanged(project: Project) -> None:
    said(project.make("preview", "EXPECT_NO_CHANGES=1"))


def test_before_the_first_up(anna: Project, database: PostgreSQL) -> None:
    """What is missing is named, and nothing is made in its place."""
    with_password = database.url.replace("stt@", f"stt:{PASSWORD}@")
    refused(anna.make("up", PULUMI_BACKEND_URL=with_password), "has a password", "~/.pgpass")
    elsewhere = {"PULUMI_BACKEND_URL": database.url.replace(str(database.port), "1")}
    refused(anna.make("preview", **elsewhere), "the backend does not answer", "connection refused")
    unnamed = run("make", "-s", "env", cwd=anna.root, env=anna.variables(**elsewhere))
    refused(unnamed, "connection refused", "name it: STACK=NAME")
    preview = said(anna.make("preview"))
    assert "to create" in preview and "whose state others share" in preview
    refused(anna.make("up"), "there is no passphrase here", "PULUMI_CONFIG_PASSPHRASE_FILE")
    assert not (anna.root / "state" / "passphrase").exists()
    assert [row.partition("|")[0] for row in database.rows()] == ["stt/.pulumi/meta.yaml"]
    assert left_of(DOMAIN) == []


def test_two_operators_have_one_stack(anna: Project, ben: Project, database: PostgreSQL) -> None:
    give_passphrase(anna)
    said(anna.make("up"))
    anna.inside("touch", MARKER)
    commit(anna)  # the salt
    git(ben, "pull", "--quiet")
    refused(ben.make("preview"), "there is no passphrase here")
    give_passphrase(ben, "another")
    refused(ben.make("preview"), "incorrect passphrase")
    give_passphrase(ben)
    state, before = database.rows(), files(ben)
    unchanged(ben)
    assert "no drift" in said(ben.make("drift"))
    assert "custom" in said(ben.make("status"))
    assert key(ben) == key(anna)
    assert files(ben) ^ before == set()
    assert database.rows() == state
    said(ben.make("rotate-key"))
    assert STACK in said(ben.shell("pulumi stack ls"))
    assert key(ben) == key(anna)


def test_a_review_reads_the_state(ben: Project, database: PostgreSQL, tmp_path: Path) -> None:
    """Of the checkout's backend, whatever a commit names; without the host, of none."""
    seen = tmp_path / "seen.json"
    git(ben, "checkout", "--quiet", "-b", "change")
    ben.set(language="fr")
    use_backend(ben, "postgres://stt@elsewhere.example/stt")
    program = ben.root / "__main__.py"
    look = f"import json, os\nopen({str(seen)!r}, 'w').write(json.dumps(dict(os.environ)))\n"
    program.write_text(program.read_text() + look)
    commit(ben)
    git(ben, "checkout", "--quiet", "main")
    ben.settings.pop("language")
    state, words = database.rows(), ("review", "BASE=main", "HEAD=change")
    comment = said(ben.make(*words))
    assert "Pulumi's own diff" in comment and "stt:language" in comment
    assert json.loads(seen.read_text())["PULUMI_BACKEND_URL"] == database.url
    secrets = {"PGPASSWORD": PASSWORD, "PGPASSFILE": "x", "PULUMI_CONFIG_PASSPHRASE": PASSPHRASE}
    comment = said(ben.make(*words, OFFLINE="1", PULUMI_BACKEND_URL=database.url, **secrets))
    assert "Pulumi's own diff" not in comment and "stt:language" in comment
    assert not {database.url, *secrets.values()} & set(json.loads(seen.read_text()).values())
    assert database.rows() == state


def test_one_run_at_a_time(anna: Project, ben: Project, database: PostgreSQL) -> None:
    who = f"created by root@{os.uname().nodename} (pid"
    with running(anna, database) as up:
        refused(ben.make("up"), "the stack is currently locked by 1 lock(s)", who, "docs/team.md")
        unchanged(ben)
        up.signal(signal.SIGCONT)
        assert up.end() == 0, up.said
    assert database.rows(LOCK) == []
    with running(anna, database):
        pass  # killed
    for operator in (anna, ben):
        refused(operator.make("up"), "pulumi cancel", who)
    assert len(database.rows(LOCK)) == 1
    follow(ben, *blocks("Locks"))
    said(ben.make("up"))


def test_a_stack_moves_there_and_back(anna: Project, ben: Project, database: PostgreSQL) -> None:
    before, state = key(anna), anna.root / "state" / ".pulumi"
    export, load, remove = blocks("Moving there and back")
    follow(anna, export)
    assert (anna.root / f"{STACK}.json").stat().st_mode & 0o777 == 0o600
    assert before not in (anna.root / f"{STACK}.json").read_text()
    use_backend(anna, FILE)
    assert "incus-stt: stack e2e\n" in follow(anna, load, remove, **{FILE: database.url})
    assert key(anna) == before
    refused(ben.make("preview"), "the stack e2e of the project stt", "owns the project")
    said(anna.make("up"))
    (state / "stacks" / "stt" / f"{STACK}.json").write_text("{broken")
    refused(anna.make("preview"), "failed to load checkpoint")
    copy_back = blocks("A broken state")[0]
    last = max((state / "backups" / "stt" / STACK).iterdir()).name
    follow(anna, copy_back, **{"production.1772359200000000000.json": last})
    follow(anna, export)
    use_backend(anna, database.url)
    follow(anna, load, remove)
    assert not (state / "stacks" / "stt" / f"{STACK}.json").exists()
    assert key(ben) == before


def test_a_broken_state_is_taken_from_its_backup(anna: Project, database: PostgreSQL) -> None:
    broken = "json_build_object('data', encode('{broken', 'base64'))"
    database.sql(f"update pulumi_state set data = {broken} where key like '%/stt/{STACK}.json'")
    refused(anna.make("preview"), "failed to load checkpoint")
    last = database.rows(f"/backups/stt/{STACK}/")[-1].partition("|")[0].rpartition("/")[2]
    names = {"production.1772359200000000000.json": last}
    commands = with_names(blocks("A broken state")[1], **names)
    psql = [str(PROGRAMS[-1].with_name("psql")), database.url]
    said(run(*psql, input=commands, env=anna.variables()))
    unchanged(anna)


def test_another_passphrase(anna: Project, ben: Project) -> None:
    before = key(anna)
    follow(anna, *blocks("Another passphrase"))
    commit(anna)
    git(ben, "pull", "--quiet")
    refused(ben.make("preview"), "incorrect passphrase")
    give_passphrase(ben, (anna.root / "state" / "passphrase").read_text())
    assert key(ben) == before


def test_a_lost_passphrase(anna: Project) -> None:
    """A new state takes over what runs; the key stays, and so does the data."""
    before = key(anna)
    (anna.root / "state" / "passphrase").unlink()
    refused(anna.make("up"), "there is no passphrase here")
    file = anna.root / "stacks" / f"Pulumi.{STACK}.yaml"
    file.write_text(re.sub("^encryptionsalt:.*\n", "", file.read_text(), flags=re.MULTILINE))
    follow(anna, blocks("Setting up")[1])
    fresh, secret, adopt = blocks("A lost passphrase")
    follow(anna, fresh)
    kept = anna.inside("cat", "/etc/incus-stt/stt_server/api-key")
    env = blocks("Locks")[0].splitlines(keepends=True)[0]
    follow(anna, env, secret, text=kept)
    shown = follow(anna, env, adopt)
    assert not re.search("(creat|replac|delet)ed .*instance", shown), shown
    assert key(anna) == before == kept
    assert anna.inside("ls", MARKER) == MARKER
