"""What a person meets when something is wrong: one clear sentence, and nothing lost."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from host.objects import OWNER
from tests.documented import command
from tests.e2e.documented import follow
from tests.e2e.locked import lock_files
from tests.e2e.other_incus import IMAGE
from tests.e2e.project import (
    RECORDINGS,
    ROOT,
    STACK,
    Answer,
    Project,
    incus,
    left_of,
    light,
    post_recording,
    remove_leftovers,
    request,
    run,
)
from tests.model_hub import ModelHub

DOMAIN, SUBNET = "stt-e2e-f", "10.213.43"


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Project]:
    """A stack of which nothing is there yet, and of which nothing stays."""
    stack = Project(tmp_path, DOMAIN, SUBNET)
    light(stack)
    yield stack
    stack.pulumi("destroy")
    left = left_of(DOMAIN)
    remove_leftovers(DOMAIN)
    assert left == []


def sentence(said: str, *parts: str) -> None:
    """The message has every part, and no traceback is shown to the operator."""
    for part in parts:
        assert part in said, said
    assert "Traceback" not in said, said


def health(project: Project) -> Answer:
    """What the service says where it is declared to be by default."""
    return request(f"http://{project.subnet}.1:8000/health")


def test_wrong_configuration_is_told_at_once_and_touches_nothing(fresh: Project) -> None:
    fresh.set(engine="faster-whisper", custom=None, port=0, language="xx", quantization="float16")
    fresh.set(modle="small")
    for words in (("up",), ("preview",)):
        said = fresh.fails(*words)
        sentence(said, "nothing on the host was touched", "stt:port: 0", 'stt:language: "xx"')
        sentence(said, 'stt:modle: unknown key. Did you mean "model"?')
    assert left_of(DOMAIN) == []


def test_a_gpu_stack_without_a_gpu_is_refused_with_one_that_works(fresh: Project) -> None:
    if "10de" in incus("query", "/1.0/resources"):
        pytest.skip("this host has an NVIDIA card")
    gpu = {"type": "gpu", "gputype": "physical"}
    fresh.machines["gpu-server"] = {
        "roles": ["base_system", "stt_server"],
        "gpu": True,
        "devices": {"gpu": gpu},
    }
    fresh.set(engine="speaches", model="small", quantization="float16", custom=None)
    sentence(fresh.fails(), "no NVIDIA card", "make up STACK=cpu")
    assert left_of(DOMAIN) == []


@pytest.mark.seldom
def test_a_subnet_of_somebody_else_is_left_alone(fresh: Project) -> None:
    name = "stt-e2e-f-used"
    incus("network", "create", name, f"ipv4.address={SUBNET}.254/24", "ipv6.address=none")
    try:
        sentence(fresh.fails(), f"{SUBNET}.0/24 is taken by the network {name}")
        assert name in incus("network", "list", "--format", "csv")
    finally:
        incus("network", "delete", name)
    fresh.up()
    assert fresh.transcribe("hello_world").status == 200


def test_a_project_of_somebody_else_is_left_alone(fresh: Project) -> None:
    incus("project", "create", DOMAIN)
    try:
        sentence(fresh.fails(), f"project {DOMAIN} that incus-stt did not make")
        fresh.pulumi("destroy")
        assert DOMAIN in incus("project", "list", "--format", "csv")
    finally:
        incus("project", "delete", DOMAIN)


@pytest.mark.seldom
def test_machines_that_were_made_anew_are_set_up(fresh: Project) -> None:
    """As a run leaves them that was killed: what the state remembers was in other machines."""
    anew = {"gpu-server": "create", "running": "launch"}  # one is stopped, the other runs
    fresh.machines["running"] = fresh.machines["gpu-server"]
    fresh.write()
    fresh.up()
    for name, verb in anew.items():
        machine = json.loads(incus("query", f"/1.0/instances/{name}?project={DOMAIN}"))
        wanted = {key: machine[key] for key in ("description", "profiles", "devices")}
        kept = machine["config"].items()
        config = {k: v for k, v in kept if not k.startswith(("volatile.", "image."))}
        incus("delete", "--force", name, project=DOMAIN)
        incus(verb, IMAGE, name, project=DOMAIN, stdin=json.dumps({**wanted, "config": config}))
    drift = fresh.drift()
    for name in anew:
        line = f"{name}/instance: machine {name}: another one -> the one that was set up"
        assert line in drift, drift
    fresh.up()
    assert fresh.unchanged()
    for name, about in fresh.outputs()["machines"].items():
        key = fresh.outputs()["stt_api_key"]
        recording = RECORDINGS / "hello_world.wav"
        assert post_recording(about["stt_url"], recording, "light", key).status == 200, name


@pytest.mark.seldom
def test_an_unknown_storage_pool_is_refused_with_those_there_are(fresh: Project) -> None:
    fresh.set(pool="nowhere")
    sentence(fresh.fails(), 'stt:pool: "nowhere" is not a storage pool', "default")


@pytest.mark.seldom
def test_an_image_that_is_not_there_is_said(fresh: Project) -> None:
    fresh.set(image="nowhere")
    sentence(fresh.fails(), "The image nowhere cannot be used", "stt:image")
    fresh.set(image="images:debian/12")
    fresh.up()  # the cause is mended: it converges


def test_a_host_that_is_not_there_is_said(fresh: Project) -> None:
    fresh.set(connection="ssh:nobody@host.invalid")
    sentence(fresh.fails(), "stt:connection is ssh:nobody@host.invalid", "cannot be reached")
    fresh.set(connection="incus:nowhere")
    sentence(fresh.fails(), "stt:connection is incus:nowhere", "no such remote")


@pytest.mark.seldom
def test_a_host_without_incus_is_said(fresh: Project, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for program in Path("/usr/bin").iterdir():
        if program.name not in ("incus", "pulumi"):
            (tools / program.name).symlink_to(program)
    done = fresh.pulumi("up", PATH=str(tools))
    assert done.returncode != 0
    sentence(done.stdout + done.stderr, "there is no incus client", "make up")


def test_a_daemon_that_does_not_answer_is_said(fresh: Project, tmp_path: Path) -> None:
    done = fresh.pulumi("up", INCUS_DIR=str(tmp_path / "no-daemon"))
    assert done.returncode != 0
    sentence(done.stdout + done.stderr, "the Incus daemon does not answer")


@pytest.mark.skipif(not shutil.which("setpriv"), reason="needs setpriv to be another user")
def test_a_user_without_permission_is_told_the_group(fresh: Project) -> None:
    if os.geteuid():
        pytest.skip("only root can be another user")
    script = "incus query /1.0"
    done = run("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", script)
    code = (
        "import sys; from declaration.connection import parse_connection; "
        "from host.reading import explain; "
        "print(explain(parse_connection('local'), sys.stdin.read().strip()))"
    )
    told = run(str(ROOT / ".venv/bin/python"), "-c", code, cwd=ROOT, input=done.stderr)
    sentence(told.stdout, "may not use Incus", "incus-admin")


def test_a_model_that_is_not_there_leaves_the_old_service(project: Project) -> None:
    hub = ModelHub(f"{project.subnet}.254", {})
    try:
        project.set(model="nobody/nothing", sources={"models": hub.url})
        sentence(project.fails(), "there is no nobody/nothing on the model hub")
        assert project.health()["model"] == "./models/tiny-digits"
    finally:
        hub.close()
    project.set(model="./models/tiny-digits", sources=None)
    project.up()


@pytest.mark.seldom
def test_a_model_is_fetched_and_a_download_that_is_cut_short_goes_on(project: Project) -> None:
    directory = ROOT / "models/tiny-digits"
    repository = "deepdml/faster-whisper-large-v3-turbo-ct2"
    hub = ModelHub(f"{project.subnet}.254", {repository: directory})
    hub.cut = 1000
    try:
        project.set(model="large-v3-turbo", sources={"models": hub.url})
        sentence(project.fails(), "stt:model large-v3-turbo", "download", "then run up again")
        assert project.transcribe("hello_world").json["text"] == "hello world"
        hub.cut = 0
        # The hub has another model under this name than the lock file says.
        sentence(project.fails(), "SHA-256", "artifacts.lock has", "it was removed")
        assert project.transcribe("hello_world").json["text"] == "hello world"
        lock_files(project, f"pkg:huggingface/{repository}", directory.iterdir())
        project.up()
        assert project.health()["model"] == "large-v3-turbo"
        asked = len(hub.requests)
        project.up()
        assert len(hub.requests) == asked  # what was fetched is not fetched again
    finally:
        hub.close()
    # The page's command names this model, so it is typed as it stands.
    line = command("gpu-server:8000")
    assert '"model=large-v3-turbo"' in line and project.outputs()["stt_model"] == "large-v3-turbo"
    assert json.loads(follow(project, line).stdout)["text"] == "hello world"
    project.set(model="./models/tiny-digits", sources=None)
    project.up()


@pytest.mark.seldom
def test_a_full_disk_is_said_and_the_old_service_stays(project: Project) -> None:
    """The machine's disk is full for its services: a small file system stands in for it."""
    target = "/var/lib/incus-stt"
    project.inside("mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", target)
    try:
        project.set(quantization="float32")
        sentence(project.fails(), "No space left on device")
        assert health(project).json["compute_type"] == "int8_float32"
    finally:
        project.inside("umount", target)
    project.up()
    assert project.health()["compute_type"] == "float32"
    project.set(quantization="int8")
    project.up()


#: A file system with all that is in /etc/incus-stt, and no room for one file more.
FULL = """
cp -a /etc/incus-stt /run/copy
mount -t tmpfs -o mode=0755 tmpfs /etc/incus-stt
cp -a /run/copy/. /etc/incus-stt
rm -rf /run/copy
# With the source named, mount does not repeat its uid, a number of the host's that nobody has here.
mount -o remount,nr_inodes=$(find /etc/incus-stt | wc -l) tmpfs /etc/incus-stt
"""


@pytest.mark.seldom
def test_files_that_cannot_all_be_written_are_not_left_for_the_next_boot(project: Project) -> None:
    unit = ("cat", "/etc/systemd/system/faster-whisper.service")
    before = project.inside(*unit)
    project.inside("sh", "-euc", FULL)  # the unit file can be written, its environment file cannot
    try:
        project.set(port=80)  # which changes both
        sentence(project.fails(), "No space left on device")
    finally:
        project.inside("umount", "/etc/incus-stt")
    assert project.inside(*unit) == before
    project.inside("systemctl", "restart", "faster-whisper.service")
    assert project.health()["status"] == "ok"
    project.up()
    assert project.inside(*unit) != before
    assert request(f"http://{project.subnet}.1/health").status == 200
    project.set(port=None)
    project.up()


@pytest.mark.seldom
def test_what_was_removed_by_hand_does_not_stop_destroy(fresh: Project) -> None:
    fresh.up()
    incus("delete", "--force", "gpu-server", project=DOMAIN)
    fresh.destroy()
    assert DOMAIN not in incus("project", "list", "--format", "csv")


@pytest.mark.seldom
def test_a_lost_state_is_taken_over_only_when_asked(fresh: Project) -> None:
    fresh.up()
    path = f"/1.0/storage-pools/{fresh.pool}/volumes/custom/models?project={DOMAIN}"
    volume = json.loads(incus("query", path))
    assert volume["config"]["volatile.idmap.last"]  # what Incus notes down for itself
    shutil.rmtree(fresh.root / "state")
    sentence(fresh.fails(), "a passphrase that is not here", "A lost passphrase")
    file = fresh.root / "stacks" / f"Pulumi.{STACK}.yaml"
    file.write_text(re.sub("^encryptionsalt:.*\n", "", file.read_text(), flags=re.MULTILINE))
    sentence(fresh.fails(), "owns the project stt-e2e-f", "stt:adopt")
    fresh.set(adopt=True)
    fresh.up()
    assert fresh.transcribe("hello_world").status == 200
    found = json.loads(incus("query", path))
    assert found["config"].pop(OWNER) != volume["config"].pop(OWNER)
    assert found == volume  # the very volume, with its models
    fresh.set(adopt=None)
    assert fresh.unchanged()
