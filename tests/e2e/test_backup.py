"""A backup of a stack that is in use, and its restore on another Incus daemon."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.other_incus import IMAGE, OtherIncus
from tests.e2e.places import new_directory
from tests.e2e.project import ROOT, STACK, Project, incus, left_of, light, machine, request

DOMAIN, SUBNET, ADDRESS = "stt-e2e-k", "10.213.58", "127.0.0.1:18444"
PASSPHRASE = "what the operator chose"


def checkout(root: Path, **environment: str) -> Project:
    """A clone with the role ``diary``."""
    project = Project(root, DOMAIN, SUBNET, environment=environment)
    shutil.copytree(ROOT / "tests" / "e2e" / "diary", root / "roles" / "diary")
    return project


@pytest.fixture
def used(tmp_path: Path) -> Iterator[Project]:
    """A stack that is up and written to."""
    project = checkout(tmp_path / "one")
    light(project)
    project.machines["diary"] = machine("diary", cache=False)
    project.set(image=IMAGE, snapshots={"schedule": "@daily", "expiry": "3d"})
    project.up()
    yield project
    project.destroy()
    assert left_of(DOMAIN) == []


@pytest.fixture
def other() -> Iterator[OtherIncus]:
    daemon = OtherIncus(new_directory())
    try:
        daemon.set_up()
        yield daemon
    finally:
        daemon.remove()


def diary(project: Project, path: str = "/") -> Any:
    answer = request(project.outputs()["diary_url"] + path)
    assert answer.status == 200
    return answer.json


def note(project: Project, text: str) -> int:
    outputs = project.outputs()
    url, key = outputs["diary_url"], outputs["diary_key"]
    return request(url, key, data=text.encode(), method="POST").status


def volume(project: Project, *words: str) -> str:
    where = ("storage", "volume", *words[:-1], project.pool, "diary", words[-1])
    return incus(*where, project=DOMAIN, **project.environment).strip()


def snapshots(project: Project) -> list[str]:
    """The names of all volumes and snapshots."""
    path = f"/1.0/storage-pools/{project.pool}/volumes/custom?project={DOMAIN}&recursion=1"
    return sorted(each["name"] for each in json.loads(incus("query", path)))


def test_users_chats_and_keys_come_back_on_another_host(
    used: Project, other: OtherIncus, tmp_path: Path
) -> None:
    # Incus' own schedule, on the volume with data only.
    assert volume(used, "get", "snapshots.schedule") == "@daily"
    assert volume(used, "get", "snapshots.expiry") == "3d"
    words = ("storage", "volume", "get", used.pool, "models", "snapshots.schedule")
    assert incus(*words, project=DOMAIN).strip() == ""
    volume(used, "unset", "snapshots.schedule")
    assert used.drift() == ["volume/diary: config.snapshots.schedule: (none) -> @daily"]
    volume(used, "set", "snapshots.schedule=@daily")

    # A backup, while it is written to.
    assert note(used, "a chat") == 200
    outputs, before, volumes = used.outputs(), diary(used), snapshots(used)
    file, key = tmp_path / "backup", tmp_path / "key"
    key.write_text(PASSPHRASE)
    there = {"FILE": str(file)}
    assert "BACKUP_PASSPHRASE_FILE" in used.make("backup", **there).stderr
    done = used.make("backup", **there, BACKUP_PASSPHRASE_FILE=str(key))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "machines were paused for" in done.stderr
    after = diary(used)
    assert after["rows"][0] > before["rows"][0]
    assert snapshots(used) == volumes
    assert used.unchanged()
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    content = file.read_bytes()
    state_key = (used.root / "state" / "passphrase").read_text().strip()
    for secret in (PASSPHRASE, state_key, outputs["stt_api_key"], outputs["diary_key"]):
        assert secret.encode() not in content
    with tarfile.open(file) as tar:
        manifest = json.load(tar.extractfile("manifest.json") or pytest.fail("no manifest"))
    assert manifest["models"]["stt"] == {f"{DOMAIN}/gpu-server": ["light"]}
    assert manifest["domains"][DOMAIN]["machines"]["diary"] == f"{SUBNET}.2"
    assert note(used, "a chat that comes later") == 200
    used.destroy()

    # A bare clone, and another host.
    bare = checkout(tmp_path / "two", **other.serve("lab", ADDRESS, tmp_path / "client"))
    stack_file = bare.root / "stacks" / f"Pulumi.{STACK}.yaml"
    said = bare.make("restore", **there, BACKUP_PASSPHRASE_FILE=str(key)).stderr
    assert f"other versions of stacks/Pulumi.{STACK}.yaml, infra.e2e.yml" in said
    stack_file.unlink()
    (bare.root / "infra.e2e.yml").unlink()
    key.write_text("what nobody chose")
    said = bare.make("restore", **there, BACKUP_PASSPHRASE_FILE=str(key)).stderr
    assert "the passphrase is not the archive's" in said
    assert not stack_file.exists()
    key.write_text(PASSPHRASE)
    elsewhere = {"CONNECTION": "incus:lab", "POOL": "default"}
    done = bare.make("restore", **there, **elsewhere, BACKUP_PASSPHRASE_FILE=str(key))
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stderr)

    assert yaml.safe_load(stack_file.read_text())["config"]["stt:connection"] == "incus:lab"
    bare.settings = {**used.settings, "connection": "incus:lab", "pool": "default"}
    bare.environment |= other.environment  # to look at it past the remote
    assert left_of(DOMAIN, **other.environment)
    for name in ("stt_api_key", "diary_key", "stt_url", "diary_url"):
        assert bare.outputs()[name] == outputs[name]
    found = diary(bare, "/check")
    assert found["check"] == "ok"
    assert found["notes"] == ["a chat"]  # and not what was written after the backup
    assert found["rows"][0] == found["rows"][1] >= before["rows"][0]
    assert note(bare, "a chat on the new host") == 200
    assert bare.transcribe("one_two_three").status == 200
    assert volume(bare, "get", "snapshots.schedule") == "@daily"
    assert bare.unchanged()

    # Again: nothing is lost.
    done = bare.make("restore", **there, **elsewhere, BACKUP_PASSPHRASE_FILE=str(key))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"the volume {DOMAIN}/diary is this stack's own, and stays as it is" in done.stderr
    assert diary(bare)["notes"] == ["a chat", "a chat on the new host"]
    bare.destroy()
    assert left_of(DOMAIN, **other.environment) == []
