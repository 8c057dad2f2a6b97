"""What an operator types: `make` and plain `pulumi`, and what Ctrl-C does."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE, STDOUT

import pytest

from tests.e2e.project import (
    STACK,
    Project,
    changed,
    everything,
    left_of,
    request,
    run,
    tree,
    two_machines,
    wait_until,
)

DOMAIN, SUBNET = "stt-e2e-t", "10.213.51"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A stack with an engine that is up in seconds, and a second machine."""
    project = two_machines(tmp_path_factory.mktemp("commands"), DOMAIN, SUBNET)
    yield project
    project.destroy()
    assert left_of(DOMAIN) == []


def said(done: subprocess.CompletedProcess[str]) -> str:
    """All that a command said; it has to have succeeded."""
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def key(project: Project) -> str:
    return str(project.outputs()["stt_api_key"])


def models_url(project: Project) -> str:
    return f"http://{project.subnet}.1:8000/v1/models"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A user's home with nothing but the Pulumi CLI in its cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "incus-stt")
    [cli] = cache.glob("pulumi-[0-9]*")
    (tmp_path / ".cache" / "incus-stt").mkdir(parents=True)
    (tmp_path / ".cache" / "incus-stt" / cli.name).symlink_to(cli)
    return tmp_path


def test_a_preview_of_a_new_stack_changes_nothing(small: Project, home: Path) -> None:
    # At a user's first call the incus client writes a file of its own.
    client = os.environ.get("INCUS_CONF") or str(Path.home() / ".config" / "incus")
    variables = {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache"), "INCUS_CONF": client}
    before = tree(small.root, home)
    preview = small.make("preview", **variables)
    text = said(preview)
    assert "command:local:Command: (create)" in text and "DRIFT" not in text
    assert "incus-stt: no drift" in said(small.make("drift", **variables))
    assert tree(small.root, home) == before
    assert left_of(DOMAIN) == []


def test_what_a_preview_lacks_is_named_and_not_set_up(small: Project, home: Path) -> None:
    cache = home / ".cache" / "incus-stt"
    [cli] = cache.iterdir()
    cli.unlink()
    path = os.pathsep.join(
        each for each in os.environ["PATH"].split(os.pathsep) if not Path(each, "pulumi").exists()
    )
    variables = {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache"), "PATH": path}
    done = small.make("preview", **variables)
    assert done.returncode != 0 and "there is no Pulumi CLI here. Run: make setup" in done.stderr
    venv = small.root / ".venv"
    venv.rename(small.root / ".venv-kept")
    done = small.make("drift", **variables)
    (small.root / ".venv-kept").rename(venv)
    assert done.returncode != 0 and "packages are not installed" in done.stderr
    assert list(cache.iterdir()) == []


def test_make_stt_brings_the_role_up_on_an_empty_stack(small: Project) -> None:
    said(small.make("stt"))
    answer = small.transcribe("hello_world")
    assert answer.status == 200 and answer.json["text"].endswith(" bytes")
    assert not any("/instances/other" in path for path in left_of(DOMAIN))


def test_a_second_machine_comes_with_the_next_up(small: Project) -> None:
    done = changed(small.up(), f"{DOMAIN}/")
    assert done == ["acl/closed", "other/agent", "other/instance"]
    assert small.unchanged()


@pytest.mark.seldom
def test_make_stt_brings_the_role_up_after_it_was_off(small: Project) -> None:
    small.set(enabled=False)
    assert "stt:enabled is false" in small.make("stt").stderr
    small.up()
    small.set(enabled=None)
    small.machines["other"]["config"] = {"user.note": "not now"}
    small.write()
    done = changed(said(small.make("stt")), f"{DOMAIN}/")
    assert "gpu-server/stt_server/service" in done
    assert not any(name.startswith("other/") for name in done)
    assert small.transcribe("hello_world").status == 200
    # What was allowed before goes with a whole `up`; here that is nothing.
    assert changed(small.up(), f"{DOMAIN}/") == ["acl/closed", "other/instance"]


def test_make_stt_updates_only_the_role(small: Project) -> None:
    small.set(keepAlive="9m")
    done = changed(said(small.make("stt")), f"{DOMAIN}/gpu-server/stt_server/")
    assert done == ["install", "service", "verify"]
    assert small.health()["STT_KEEP_ALIVE"] == "540"
    assert small.unchanged()


def test_rotate_key_makes_another_key(small: Project) -> None:
    before = key(small)
    small.set(language="fr")  # which this model does not know: it waits for the next `up`
    text = said(small.make("rotate-key"))
    small.set(language=None)
    after = key(small)
    assert after != before and after not in text
    assert "the new key: make outputs" in text
    assert "stt_check" not in text  # it is of the former verification
    assert small.transcribe("hello_world").status == 200
    assert small.unchanged()


@pytest.mark.seldom
def test_a_shell_for_plain_pulumi(small: Project) -> None:
    """Everything as in Pulumi's own documentation, on the stack that `make` made."""
    small.set(keepAlive="5m")
    shown = said(small.shell("pulumi preview --diff"))
    assert re.search(r'~ STT_KEEP_ALIVE +: "540" => "300"', shown), shown
    message = "registering resource: ty=command:local:Command"
    assert message not in said(small.shell("pulumi preview --debug"))
    assert message in said(small.shell("STT_DEBUG=1 pulumi preview --debug"))
    plan = json.loads(small.shell("pulumi preview --json").stdout)
    assert plan["changeSummary"]["update"] == 3, plan["changeSummary"]
    steps = {step["urn"].rpartition("/")[2]: step["op"] for step in plan["steps"]}
    assert steps["service"] == "update"
    assert "Resources:" in said(small.shell("pulumi up --yes"))
    assert small.health()["STT_KEEP_ALIVE"] == "300"
    assert "unchanged" in said(small.shell("pulumi refresh --yes"))
    assert small.unchanged()
    listed = said(small.shell("pulumi stack"))
    assert f"Current stack is {STACK}" in listed
    assert f"{DOMAIN}/gpu-server/stt_server/service" in listed
    history = json.loads(small.shell("pulumi stack history --json").stdout)
    assert {entry["kind"] for entry in history} >= {"update", "refresh"}
    assert all(entry["result"] == "succeeded" for entry in history)


def test_destroy_asks_where_somebody_is_there(small: Project) -> None:
    """At a terminal, also where the stack is named; anything but yes changes nothing."""
    ours, theirs = os.openpty()
    line = ("make", "-s", "destroy", f"STACK={STACK}")
    with subprocess.Popen(
        line, cwd=small.root, env=small.variables(), stdin=theirs, stdout=PIPE, stderr=STDOUT
    ) as process:
        os.write(ours, b"n\n")
        answer = process.communicate(timeout=120)[0].decode()
    os.close(ours)
    os.close(theirs)
    assert process.returncode != 0
    asked = re.search(r"removes:\n(.*)Destroy stack e2e\? \[y/N\] ", answer, re.DOTALL)
    assert asked and f"  machine {DOMAIN}/other, with all in it" in asked[1]
    assert "nothing was changed" in answer
    assert small.unchanged()


def test_without_a_name_it_is_the_stack_that_is_selected(small: Project) -> None:
    def make(*words: str) -> subprocess.CompletedProcess[str]:
        return run("make", "-s", *words, cwd=small.root, env=small.variables())

    done = make("outputs")
    assert json.loads(done.stdout)["stt_url"] == small.outputs()["stt_url"]
    assert f"incus-stt: stack {STACK}" in done.stderr
    said(small.shell("pulumi stack init another; pulumi stack select another"))
    assert "incus-stt: stack another" in make("outputs").stderr
    assert "name the stack to destroy: make destroy STACK=another" in make("destroy").stderr
    # A stack with the same topology is told whose machine it asks.
    file = small.root / "stacks" / f"Pulumi.{STACK}.yaml"
    (small.root / "stacks" / "Pulumi.another.yaml").write_text(file.read_text())
    for verb in ("vram", "flush"):
        done = make(verb)
        assert f"belongs to the stack {STACK} of the project stt" in done.stderr, done.stderr
        assert done.returncode and not done.stdout
    said(small.shell(f"pulumi stack rm --yes another; pulumi stack select {STACK}"))
    assert "incus-stt: stack e2e" in make("vram").stderr


def test_a_state_can_be_exported_and_imported(small: Project) -> None:
    file = small.root / "exported.json"
    said(small.shell(f"pulumi stack export --file {file}"))
    assert key(small) not in file.read_text()
    said(small.shell(f"pulumi stack import --file {file}"))
    assert small.unchanged()
    assert small.transcribe("hello_world").status == 200


@pytest.mark.seldom
def test_a_state_that_was_restored_is_brought_back(small: Project) -> None:
    """The machine has a newer key and newer settings than the state; clients go by the state."""
    file = small.root / "exported.json"
    said(small.shell(f"pulumi stack export --file {file}"))
    old, idle = key(small), small.health()["STT_KEEP_ALIVE"]
    said(small.make("rotate-key"))
    small.set(keepAlive="7m")
    small.up()
    assert key(small) != old
    said(small.shell(f"pulumi stack import --file {file}"))
    small.set(keepAlive=f"{idle}s")
    assert small.transcribe("hello_world").status == 401
    step = "gpu-server/stt_server"
    others = "(others than this stack's state has, not shown) -> as the state has them"
    assert f"{step}/secrets: secrets: {others}" in small.drift()
    newer = "something other than this stack's state has -> as it has it"
    assert f"{step}/service: applied: {newer}" in small.drift()
    small.up()
    assert key(small) == old and small.transcribe("hello_world").status == 200
    assert small.health()["STT_KEEP_ALIVE"] == idle
    assert small.unchanged()


@pytest.mark.seldom
def test_a_key_of_the_operator_s_own(small: Project) -> None:
    """It takes effect, is nowhere in plain, and `make rotate-key` leaves it."""
    made, own = key(small), "own-key-0123456789"
    said(small.shell(f"printf {own} | pulumi config set --secret stt:apiKey"))
    file = small.root / "stacks" / f"Pulumi.{STACK}.yaml"
    assert own not in file.read_text() and "secure:" in file.read_text()
    text = said(small.make("up"))
    assert own not in text
    assert key(small) == own
    assert small.transcribe("hello_world").status == 200
    outputs = small.outputs()
    wrong = request(f"{outputs['stt_url']}/audio/transcriptions", made, data=b"x", method="POST")
    assert wrong.status == 401
    done = small.make("rotate-key")
    assert done.returncode != 0
    assert "nothing was rotated: stack e2e uses the key of stt:apiKey" in done.stderr
    assert "Traceback" not in done.stderr and key(small) == own
    said(small.shell("pulumi config rm stt:apiKey"))
    small.up()
    assert key(small) != own
    assert small.unchanged()


def test_ctrl_c_ends_cleanly_and_the_next_up_converges(small: Project) -> None:
    script = small.root / "tests/e2e/light_engine/install.sh"
    longer = "# more than Linux takes as an argument\n" * 6000
    wait = "touch /run/begun; [ -e /run/in-a-hurry ] || sleep 8\n"
    script.write_text(f"{longer}{wait}{script.read_text()}")
    up = small.start_up()
    up.wait_for("stt_server/install updating")
    wait_until(lambda: "begun" in small.inside("ls", "/run"))
    up.signal(signal.SIGINT)
    assert up.end() != 0
    assert "Traceback" not in up.said, up.said
    assert "KeyboardInterrupt" not in up.said, up.said
    small.inside("touch", "/run/in-a-hurry")
    small.up()
    assert small.unchanged()
    assert small.transcribe("hello_world").status == 200


def test_a_protected_stack_is_not_destroyed(small: Project) -> None:
    small.set(protect=True)
    small.up()
    before = everything(small.domain)
    assert "protect" in small.fails("destroy")
    assert everything(small.domain) == before
    assert small.unchanged()
    small.set(quantization="float32")  # changes go on
    small.up()
    assert small.health()["STT_COMPUTE_TYPE"] == "float32"
    small.set(protect=None)
    small.up()


@pytest.mark.seldom
def test_programs_that_no_record_names_are_removed(small: Project) -> None:
    def programs() -> list[str]:
        listed = small.inside("ls", "/opt/incus-stt").split()
        return [name for name in listed if name.startswith("custom-")]

    (before,) = programs()
    engine = small.root / "tests/e2e/light_engine/engine.py"
    engine.write_text(engine.read_text() + "# another version\n")
    small.up()
    (after,) = programs()
    assert after != before
    assert small.transcribe("hello_world").status == 200


def test_destroy_in_the_shell(small: Project, tmp_path: Path) -> None:
    said(small.shell("pulumi destroy --yes"))
    assert left_of(DOMAIN) == []
    assert "0" in said(small.shell("pulumi stack ls"))
