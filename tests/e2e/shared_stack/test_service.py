"""`up` from nothing: a URL, and a recording posted to it comes back as its words."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.documented import command
from tests.e2e.documented import follow
from tests.e2e.project import (
    RECORDINGS,
    ROOT,
    Project,
    broken_model,
    changed,
    post_recording,
    request,
    run,
    wait_until,
)
from tests.multilingual import make_model

UNIT = "faster-whisper.service"
#: What `up` makes.
COMMANDS = """
    stack/id stt_server/key
    {domain}/project {domain}/network {domain}/acl {domain}/acl/closed {domain}/acl/install
    {domain}/firewall {domain}/profile/default {domain}/volume/models
    {machine}/instance {machine}/agent
    {machine}/base_system/names {machine}/base_system/packages
    {machine}/base_system/builder {machine}/base_system/uv
    {machine}/stt_server/user {machine}/stt_server/server {machine}/stt_server/program
    {machine}/stt_server/model-files {machine}/stt_server/model {machine}/stt_server/secrets
    {machine}/stt_server/clients
    {machine}/stt_server/service {machine}/stt_server/recording {machine}/stt_server/verify
    {machine}/stt_server/prune {machine}/stt_server/signpost
"""
#: What follows a change of the service: its proof, and the removal of models nobody uses.
FOLLOWING = ["prune", "service", "verify"]


def touched(project: Project, said: str) -> list[str]:
    """The steps of the STT service that an `up` applied; other resources with their full name."""
    return changed(said, f"{project.domain}/gpu-server/stt_server/")


def test_up_makes_everything_and_verifies_with_speech(project: Project, up: str) -> None:
    machine = f"{project.domain}/gpu-server"
    expected = COMMANDS.format(domain=project.domain, machine=machine).split()
    assert changed(up) == sorted(expected)
    outputs = project.outputs()
    assert outputs["stt_url"] == f"http://{project.subnet}.1:8000/v1"
    assert outputs["stt_health_url"] == f"http://{project.subnet}.1:8000/health"
    assert outputs["stt_model"] == "./models/tiny-digits"
    assert outputs["stt_check"]["text"] == "one two three"
    assert 0 < outputs["stt_check"]["seconds"] < 60
    assert 0 < outputs["stt_check"]["real_time_factor"] < 60
    # These are written in place, and read while they are empty.
    assert not list((project.root / "state").rglob("*.attrs"))
    # The whole stack of callers with each resource would be half of the state.
    exported = json.loads(project.shell("pulumi stack export").stdout)
    ours = [
        each
        for each in exported["deployment"]["resources"]
        if not each["type"].startswith("pulumi")
    ]
    assert max(len(each.get("stackTrace", ())) for each in ours) <= 4


@pytest.mark.parametrize("recording", sorted(path.stem for path in RECORDINGS.glob("*.wav")))
def test_recordings_come_back_as_their_words(project: Project, up: str, recording: str) -> None:
    answer = project.transcribe(recording)
    assert (answer.status, answer.json["text"]) == (200, recording.replace("_", " "))


def test_the_printed_curl_line_works(project: Project, up: str) -> None:
    outputs = project.outputs()
    line = outputs["stt_curl"].replace("recordings/one_two_three", str(RECORDINGS / "hello_world"))
    done = run("sh", "-c", line, env={"STT_API_KEY": outputs["stt_api_key"], "PATH": "/usr/bin"})
    assert json.loads(done.stdout)["text"] == "hello world"


def test_the_unit_is_active_enabled_and_not_root(project: Project, up: str) -> None:
    assert project.inside("systemctl", "is-active", UNIT) == "active"
    assert project.inside("systemctl", "is-enabled", UNIT) == "enabled"
    pid = project.inside("systemctl", "show", "-P", "MainPID", UNIT)
    assert project.inside("stat", "-c", "%U", f"/proc/{pid}") == "stt"
    score = project.inside("systemd-analyze", "security", "--no-pager", UNIT).splitlines()[-1]
    found = re.search(r"UNIT: ([\d.]+)|: ([\d.]+) ", score)
    assert found and float(found[1] or found[2]) <= 1.5, score


def test_the_service_says_what_really_runs(project: Project, up: str) -> None:
    health = project.health()
    assert health["model"] == "./models/tiny-digits"
    # int8 weights on a CPU compute the rest in float32, and CTranslate2 calls that so.
    assert (health["device"], health["compute_type"]) == ("cpu", "int8_float32")


def test_status_says_what_runs(project: Project, up: str) -> None:
    def status() -> tuple[int, Any]:
        done = project.make("status", "JSON=1")
        return done.returncode, json.loads(done.stdout)[f"{project.domain}/gpu-server"]

    code, before = status()
    service = before["services"]["stt_server/service"]
    assert (code, before["address"], service["unit"]) == (0, f"{project.subnet}.1", UNIT)
    assert (service["state"], service["model"]) == ("active", "./models/tiny-digits")
    assert (service["device"], service["compute_type"]) == ("cpu", "int8_float32")
    assert service["seconds"] < 3600 and service["memory"] > 20 << 20
    assert project.transcribe("hello_world").status == 200
    assert (
        post_recording(project.outputs()["stt_url"], RECORDINGS / "hello_world.wav", "x").status
        == 401
    )
    after = status()[1]["services"]["stt_server/service"]
    assert after["requests"] - service["requests"] == 2
    assert after["failed"] - service["failed"] == 1
    project.inside("systemctl", "stop", "stt.socket")
    try:
        code, stopped = status()
        assert (code != 0, stopped["services"]["stt_server/service"]["state"]) == (True, "inactive")
        assert "faster-whisper: inactive" in project.make("status").stdout
    finally:
        project.inside("systemctl", "start", UNIT)


def test_whoever_restarts_the_socket_restarts_the_service(project: Project, up: str) -> None:
    """As often as one likes, in any order; the port stays systemd's."""
    for units in (["stt.socket"], ["stt.socket", UNIT], [UNIT, "stt.socket"]) * 3:
        project.inside("systemctl", "restart", *units)
        assert project.health()["status"] == "ok"
    assert project.inside("systemctl", "is-active", "stt.socket", UNIT) == "active\nactive"
    assert project.unchanged()


def test_it_starts_again_with_its_machine(project: Project, up: str) -> None:
    before = project.inside("systemctl", "show", "-P", "ActiveEnterTimestampMonotonic", UNIT)
    project.inside("systemctl", "kill", "-s", "KILL", UNIT)
    wait = "until systemctl is-active -q $0 && curl -sf localhost:8000/health; do sleep 0.2; done"
    project.inside("timeout", "300", "sh", "-c", wait, UNIT)
    after = project.inside("systemctl", "show", "-P", "ActiveEnterTimestampMonotonic", UNIT)
    assert int(after) > int(before)


def test_without_the_key_there_is_no_transcription(project: Project, up: str) -> None:
    url = project.outputs()["stt_url"]
    for key in ("", "wrong-key-wrong-key"):
        answer = post_recording(url, RECORDINGS / "hello_world.wav", "whisper-1", key)
        assert answer.status == 401
        assert answer.json["error"]["code"] == "invalid_api_key"


def test_the_key_stands_nowhere_in_plain(project: Project, up: str) -> None:
    key = project.outputs()["stt_api_key"]
    assert len(key) >= 40
    assert key not in up
    assert key not in project.pulumi("outputs").stdout
    assert key not in project.pulumi("preview", "--diff").stdout
    for path in project.root.glob("state/**/*"):
        assert not path.is_file() or key.encode() not in path.read_bytes(), path
    assert key not in project.inside("sh", "-c", "cat /proc/[0-9]*/cmdline; journalctl --no-pager")
    files = project.inside("grep", "-rlF", "-e", key, "/etc", "/var/lib/incus-stt").split()
    for file in files:
        assert project.inside("stat", "-c", "%a", file) == "600", file


def test_openai_clients_with_a_fixed_model_name_work(project: Project, up: str) -> None:
    answer = project.transcribe("hello_world", model="whisper-1")
    assert (answer.status, answer.json["text"]) == (200, "hello world")


def test_another_model_is_refused_by_name(project: Project, up: str) -> None:
    answer = project.transcribe("hello_world", model="large-v3")
    assert answer.status == 404
    assert "./models/tiny-digits" in answer.json["error"]["message"]


def test_the_documented_commands_work(project: Project, up: str) -> None:
    health = [command("curl -s http://localhost:8000/health"), command("10.120.0.1:8000/health")]
    for line in health:
        assert json.loads(follow(project, line).stdout)["status"] == "ok"
    assert json.loads(follow(project, command("gpu-server:8000")).stdout)["text"] == "hello world"
    # The document's engine is another one.
    which = "Speaches is not the STT engine of this machine: faster-whisper is."
    there = {"status speaches": "Active: active (running)", "journalctl": "POST /v1/audio"}
    for words, found in there.items():
        line = command(words)
        assert which in follow(project, line, until=which).stdout
        line = line.replace("speaches", "faster-whisper")
        assert found in follow(project, line, until=found).stdout
    start = follow(project, command("status speaches").replace("status", "start"))
    assert start.returncode != 0 and "Assertion failed" in start.stderr


def test_authentication_takes_effect(project: Project, up: str) -> None:
    without = (
        command("gpu-server:8000")
        .replace('echo "Authorization: Bearer $STT_API_KEY" | ', "")
        .replace("-H @- ", "")
    )
    assert json.loads(follow(project, without).stdout)["error"]["code"] == "invalid_api_key"
    project.set(authentication="none")
    assert "stt:authentication is none: whoever reaches" in project.up()
    outputs = project.outputs()
    assert outputs["stt_authentication"] == "none" and "stt_api_key" not in outputs
    assert json.loads(follow(project, without).stdout)["text"] == "hello world"
    line = outputs["stt_curl"].replace("recordings/", f"{RECORDINGS}/")
    assert json.loads(run("sh", "-c", line).stdout)["text"] == "one two three"
    assert project.inside("ls", "/etc/incus-stt/stt_server").split() == []
    assert project.unchanged()
    for verb in ("vram", "flush"):
        assert project.make(verb).returncode == 0
    assert "stt:authentication: none" in project.make("rotate-key").stderr
    project.set(authentication=None)
    project.up()
    assert json.loads(follow(project, without).stdout)["error"]["code"] == "invalid_api_key"
    assert project.transcribe("hello_world").status == 200


def test_clients_have_keys_of_their_own(project: Project, up: str) -> None:
    """They come, are made anew and go one by one, while the service runs on."""
    running, machine = project.invocation(UNIT), f"{project.domain}/gpu-server"
    project.set(clients=["phone", "home-assistant"])
    made = [f"stt_server/client/{name}" for name in ("home-assistant", "phone")]
    assert changed(project.up()) == [f"{machine}/stt_server/clients", *made]
    url, own = project.outputs()["stt_url"], project.outputs()["stt_api_key"]

    def keys() -> dict[str, str]:
        found: dict[str, str] = project.outputs()["stt_client_keys"]
        return found

    def posts(*given: str) -> list[int]:
        recording = RECORDINGS / "hello_world.wav"
        return [post_recording(url, recording, "whisper-1", key).status for key in given]

    before = keys()
    assert posts(own, *before.values()) == [200] * 3
    assert re.search(
        r"^    by client: home-assistant 1, phone 1(, others \d+)?$",
        project.make("status").stdout,
        re.MULTILINE,
    )
    page = (ROOT / "docs" / "operations.md").read_text()
    (line,) = [each for each in page.splitlines() if each.startswith("pulumi stack output stt_cl")]
    assert project.shell(line).stdout.strip() == before["phone"]
    assert not any(key in project.pulumi("outputs").stdout for key in before.values())
    done = project.make("rotate-key", "CLIENT=phone")
    assert done.returncode == 0, done.stdout + done.stderr
    after = keys()
    assert after["home-assistant"] == before["home-assistant"] and after["phone"] not in done.stdout
    assert posts(own, before["phone"], *after.values()) == [200, 401, 200, 200]
    project.inside("rm", "/etc/incus-stt/stt_server/client-keys.json")  # somebody's mistake
    project.set(clients=["home-assistant"])
    project.up()
    assert posts(own, after["phone"], after["home-assistant"]) == [200, 401, 200]
    log = project.inside("journalctl", "--no-pager", f"_SYSTEMD_INVOCATION_ID={running}")
    assert "phone@" in log and not any(key in log for key in (*before.values(), after["phone"]))
    assert project.invocation(UNIT) == running


def test_a_second_up_changes_nothing(project: Project, up: str) -> None:
    before = project.invocation(UNIT)
    assert project.unchanged()
    assert changed(project.up()) == []
    assert project.invocation(UNIT) == before


def test_settings_take_effect_and_change_only_the_stt_service(project: Project, up: str) -> None:
    """Several at a time, and each is asked for what it does."""
    booted = project.inside("stat", "-c", "%Z", "/proc/1")
    model, before = make_model(project.root / "models" / "hundred"), dict(project.settings)
    assert project.health()["keep_alive"] == 300
    borders = [f"{project.domain}/acl", f"{project.domain}/acl/closed"]  # they name the port
    project.set(port=8123, quantization="float32", keepAlive="1s")
    assert not project.unchanged()
    assert touched(project, project.up()) == sorted(["model", *FOLLOWING, *borders])
    assert project.inside("stat", "-c", "%Z", "/proc/1") == booted
    assert project.outputs()["stt_url"] == f"http://{project.subnet}.1:8123/v1"
    with pytest.raises(OSError, match="refused"):
        request(f"http://{project.subnet}.1:8000/health")
    assert '"systemd"' in project.inside("ss", "-ltnp", "sport = :8123")  # it holds the port
    assert project.health()["compute_type"] == "float32"
    wait_until(lambda: not project.health()["loaded"])
    assert "nothing loaded" in project.make("vram").stdout
    assert project.transcribe("hello_world").json["text"] == "hello world"

    # The service is not root, and may have port 80 all the same. The model's weights are random.
    project.set(port=80, model="./models/hundred", keepAlive="-1", check={"words": ""})
    project.up()
    assert '"systemd"' in project.inside("ss", "-ltnp", "sport = :80")
    health = project.health()
    assert (health["status"], health["model"]) == ("ok", "./models/hundred")
    detected = project.transcribe("hello_world", response_format="verbose_json").json
    assert detected["language_probability"] < 1
    assert "./models/hundred loaded, never unloads" in project.make("vram").stdout

    project.set(language="fr")
    assert touched(project, project.up()) == FOLLOWING
    answer = project.transcribe("hello_world", response_format="verbose_json").json
    assert (answer["language"], answer["language_probability"]) == ("fr", 1)
    asked = project.transcribe("hello_world", response_format="verbose_json", language="de").json
    assert asked["language"] == "de"

    project.set(port=None, host="127.0.0.1")
    project.up()
    assert project.outputs()["stt_url"] == "http://127.0.0.1:8000/v1"
    assert "ok" in project.inside("curl", "-s", "http://127.0.0.1:8000/health")
    with pytest.raises(OSError, match="refused"):
        request(f"http://{project.subnet}.1:8000/health")
    project.set(host=f"{project.subnet}.1")
    project.up()
    assert project.health()["status"] == "ok"

    project.settings = before
    project.write()
    project.up()
    assert model.is_dir()  # the operator's copy; the machine's is gone
    health = project.health()
    assert (health["compute_type"], health["keep_alive"]) == ("int8_float32", 300)
    assert project.transcribe("hello_world").json["text"] == "hello world"


@pytest.mark.seldom
def test_enabled_takes_effect(project: Project, up: str) -> None:
    project.set(enabled=False)
    said = project.up()
    assert "stt_url" not in project.outputs()
    assert "service" in touched(project, said)
    with pytest.raises(OSError, match="refused"):
        request(f"http://{project.subnet}.1:8000/health")
    assert "not-found" in project.inside("systemctl", "show", "-P", "LoadState", UNIT)
    assert project.unchanged()
    project.set(enabled=None)
    project.up()
    assert project.transcribe("hello_world").json["text"] == "hello world"


def test_a_model_that_does_not_load_leaves_the_old_service_running(
    project: Project, up: str
) -> None:
    running = project.invocation(UNIT)
    project.set(model=broken_model(project))
    said = project.fails()
    assert "stt:model ./models/broken does not load" in said
    assert "The running service was not touched" in said
    assert project.invocation(UNIT) == running
    assert project.health()["model"] == "./models/tiny-digits"
    assert project.transcribe("hello_world").json["text"] == "hello world"
    project.set(model="./models/tiny-digits")
    project.up()
    assert project.unchanged()


@pytest.mark.seldom
def test_a_port_that_is_taken_is_said_and_the_old_service_stays(project: Project, up: str) -> None:
    project.inside("systemd-run", "-q", "-u", "squatter", "python3", "-m", "http.server", "8124")
    listens = "until curl -s 127.0.0.1:8124 >/dev/null; do sleep 0.2; done"
    project.inside("timeout", "300", "sh", "-c", listens)
    project.set(port=8124)
    said = project.fails()
    assert "Something else listens on port 8124 already" in said
    assert "The running service was not touched" in said
    assert request(f"http://{project.subnet}.1:8000/health").status == 200
    project.inside("systemctl", "stop", "squatter")
    project.up()  # the cause is mended: it converges
    assert project.outputs()["stt_url"].endswith(":8124/v1")
    assert project.health()["status"] == "ok"
    project.set(port=None)
    project.up()


def test_a_device_of_the_operator_s_publishes_the_port_on_the_host(
    project: Project, up: str
) -> None:
    lan = {"type": "proxy", "listen": "tcp:127.0.0.1:18923", "connect": "tcp:127.0.0.1:8000"}
    project.machines["gpu-server"]["devices"]["lan"] = lan
    project.write()
    said = project.up()
    assert changed(said) == [f"{project.domain}/gpu-server/instance"]
    assert request("http://127.0.0.1:18923/health").json["status"] == "ok"
    del project.machines["gpu-server"]["devices"]["lan"]
    project.write()
    project.up()
    with pytest.raises(OSError, match="refused"):
        request("http://127.0.0.1:18923/health")
