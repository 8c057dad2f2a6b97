"""A backup of a stack that is in use, and its restore: without the state, and on another host."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.other_incus import IMAGE, OtherIncus
from tests.e2e.project import ROOT, STACK, Project, incus, left_of, light, machine, request

pytestmark = pytest.mark.seldom

DOMAIN, SUBNET, ADDRESS = "stt-e2e-bk", "10.213.68", "127.0.0.1:18444"
PASSPHRASE = "what the operator chose"
FILE = f"stacks/Pulumi.{STACK}.yaml"


def checkout(root: Path, **environment: str) -> Project:
    """A clone with the role ``diary``."""
    project = Project(root, DOMAIN, SUBNET, environment=environment)
    shutil.copytree(ROOT / "tests" / "e2e" / "diary", root / "roles" / "diary")
    return project


def bare(root: Path, **environment: str) -> Project:
    """A clone without the stack's files."""
    project = checkout(root, **environment)
    (root / FILE).unlink()
    (root / "infra.e2e.yml").unlink()
    return project


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("backup")


@pytest.fixture(scope="module")
def used(place: Path) -> Iterator[Project]:
    """A stack that is up and written to, with a chat in it."""
    project = checkout(place / "one")
    light(project)
    project.machines["diary"] = machine("diary", cache=False)
    project.set(image=IMAGE, snapshots={"schedule": "@daily", "expiry": "3d"})
    try:
        project.up()
        assert note(project, "a chat") == 200
        yield project
    finally:
        project.destroy()
    assert left_of(DOMAIN) == []


def diary(project: Project, path: str = "/") -> Any:
    answer = request(project.outputs()["diary_url"] + path)
    assert answer.status == 200
    return answer.json


def note(project: Project, text: str) -> int:
    outputs = project.outputs()
    url, key = outputs["diary_url"], outputs["diary_key"]
    return request(url, key, data=text.encode(), method="POST").status


def volume(project: Project, verb: str, name: str, *words: str) -> str:
    where = ("storage", "volume", verb, project.pool, name, *words)
    return incus(*where, project=DOMAIN, **project.environment).strip()


def on_the_pool(project: Project) -> list[str]:
    """The names of all volumes and snapshots."""
    path = f"/1.0/storage-pools/{project.pool}/volumes/custom?project={DOMAIN}&recursion=1"
    return sorted(each["name"] for each in json.loads(incus("query", path)))


def make(
    project: Project, verb: str, file: Path, phrase: str = PASSPHRASE, **more: str
) -> subprocess.CompletedProcess[str]:
    """``make backup`` or ``restore`` with the passphrase in a file."""
    key = file.with_suffix(".key")
    key.write_text(phrase)
    return project.make(verb, FILE=str(file), BACKUP_PASSPHRASE_FILE=str(key), **more)


def manifest_of(file: Path) -> Any:
    with tarfile.open(file) as tar:
        return json.load(tar.extractfile("manifest.json") or pytest.fail("no manifest"))


@pytest.fixture(scope="module")
def archive(used: Project, place: Path) -> Path:
    """A backup, with the models."""
    file = place / "all.incus-stt"
    done = make(used, "backup", file, WHOLE="1")
    assert done.returncode == 0, done.stderr
    assert [each["name"] for each in manifest_of(file)["volumes"]] == ["diary", "models"]
    return file


def test_incus_takes_snapshots_of_what_cannot_be_fetched_again(used: Project) -> None:
    assert volume(used, "get", "diary", "snapshots.schedule") == "@daily"
    assert volume(used, "get", "diary", "snapshots.expiry") == "3d"
    assert volume(used, "get", "models", "snapshots.schedule") == ""
    volume(used, "unset", "diary", "snapshots.schedule")
    assert used.drift() == ["volume/diary: config.snapshots.schedule: (none) -> @daily"]
    used.set(snapshots=None)
    used.up()
    assert volume(used, "get", "diary", "snapshots.expiry") == ""
    used.set(snapshots={"schedule": "@daily", "expiry": "3d"})
    used.up()
    assert volume(used, "get", "diary", "snapshots.schedule") == "@daily"


def test_a_backup_while_it_is_written_to(used: Project, tmp_path: Path) -> None:
    before, there = diary(used), on_the_pool(used)
    file = tmp_path / "home.incus-stt"
    assert "BACKUP_PASSPHRASE_FILE" in used.make("backup", FILE=str(file)).stderr
    assert not file.exists()
    done = make(used, "backup", file)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "machines were paused for" in done.stderr
    assert diary(used)["rows"][0] > before["rows"][0]
    assert on_the_pool(used) == there
    assert used.unchanged()
    assert file.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == [file.name, "home.key"]

    content, outputs = file.read_bytes(), used.outputs()
    key = (used.root / "state" / "passphrase").read_text().strip()
    for secret in (PASSPHRASE, key, outputs["stt_api_key"], outputs["diary_key"]):
        assert secret.encode() not in content
    manifest = manifest_of(file)
    assert [each["name"] for each in manifest["volumes"]] == ["diary"]
    assert manifest["models"]["stt"] == {f"{DOMAIN}/gpu-server": ["light"]}
    assert manifest["domains"][DOMAIN]["machines"]["diary"] == f"{SUBNET}.2"


def test_a_lost_state_comes_back_and_the_data_stays(
    used: Project, archive: Path, place: Path
) -> None:
    """The machines run: they are this stack's again, by its id."""
    assert note(used, "a chat after the backup") == 200
    clone = bare(place / "clone")
    done = make(clone, "restore", archive)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"the volume {DOMAIN}/diary is this stack's own, and stays as it is" in done.stderr
    clone.settings = used.settings
    assert clone.outputs()["stt_api_key"] == used.outputs()["stt_api_key"]
    assert diary(clone)["notes"] == ["a chat", "a chat after the backup"]
    assert clone.unchanged()
    assert used.unchanged()


def test_users_chats_and_keys_come_back_on_another_host(
    used: Project, archive: Path, other: OtherIncus, place: Path
) -> None:
    outputs = used.outputs()
    used.destroy()

    clone = checkout(place / "two", **other.serve("lab", ADDRESS, place / "client"))
    said = make(clone, "restore", archive).stderr
    assert f"other versions of {FILE}, infra.e2e.yml" in said
    clone = bare(place / "three", **clone.environment)
    said = make(clone, "restore", archive, "what nobody chose").stderr
    assert "the passphrase is not the archive's" in said
    assert not (clone.root / FILE).exists()
    elsewhere = {"CONNECTION": "incus:lab", "POOL": "default"}
    done = make(clone, "restore", archive, **elsewhere)
    assert done.returncode == 0, done.stdout + done.stderr

    assert (
        yaml.safe_load((clone.root / FILE).read_text())["config"]["stt:connection"] == "incus:lab"
    )
    clone.settings = {**used.settings, "connection": "incus:lab", "pool": "default"}
    clone.environment |= other.environment  # to look at it past the remote
    for name in ("stt_api_key", "diary_key", "stt_url", "diary_url"):
        assert clone.outputs()[name] == outputs[name]
    found = diary(clone, "/check")
    assert found["check"] == "ok"
    assert found["notes"] == ["a chat"]  # and not what was written after the backup
    assert found["rows"][0] == found["rows"][1]
    first, last = found["at_start"]
    assert first - last in (0, 1)  # all files are of one moment
    assert f"restored the volume {DOMAIN}/models" in done.stderr
    assert note(clone, "a chat on the new host") == 200
    assert clone.transcribe("one_two_three").status == 200
    assert volume(clone, "get", "diary", "snapshots.schedule") == "@daily"
    assert clone.unchanged()

    # Again: nothing is lost.
    done = make(clone, "restore", archive, **elsewhere)
    assert done.returncode == 0, done.stdout + done.stderr
    assert diary(clone)["notes"] == ["a chat", "a chat on the new host"]
    clone.destroy()
    assert left_of(DOMAIN, **other.environment) == []
