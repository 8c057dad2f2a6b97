"""The whole program against Pulumi's mocks: what it registers, how, and in which order.

``UPDATE_GOLDEN=1 pytest tests/unit`` writes the golden files anew; read the diff.
"""

from __future__ import annotations

import os
from typing import Any

import pulumi
import pytest
from components.live import Live

from tests.unit.program import API_KEY, EMPTY_HOST, KEYS, golden, golden_file, run

STT = "ai-tools/gpu-server/stt_server"
SENT = (f"{STT}/server", f"{STT}/model-files", "ai-tools/gpu-server/recording")


@pytest.mark.parametrize("stack", ["dev", "cpu", "gpu"])
def test_a_stack_has_exactly_these_commands(stack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = golden(run(monkeypatch, stack))
    file = golden_file(stack)
    if os.environ.get("UPDATE_GOLDEN"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(found)
    assert found == file.read_text()


def test_gpu_8gb_differs_from_gpu_in_the_compute_type_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small, large = golden(run(monkeypatch, "gpu-8gb")), golden(run(monkeypatch, "gpu"))
    type_of = 'WHISPER__COMPUTE_TYPE="{}"'
    assert type_of.format("int8_float16") in small
    large = large.replace("stt-gpu\n", "stt-gpu-8gb\n")
    assert small == large.replace(type_of.format("float16"), type_of.format("int8_float16"))


def test_every_command_replaces_by_deleting_first(monkeypatch: pytest.MonkeyPatch) -> None:
    for command in run(monkeypatch, "gpu").commands.values():
        assert command.request.deleteBeforeReplace, command.name
        assert command.inputs["addPreviousOutputInEnv"] is False, command.name


def test_components_are_parents_of_what_they_make(monkeypatch: pytest.MonkeyPatch) -> None:
    registered = run(monkeypatch, "gpu").registered
    assert registered["ai-tools"].type == "stt:incus:Domain"
    types = {
        "net-ai-tools": "stt:incus:Network",
        "ai-tools/nvidia-compute": "stt:incus:Profile",
        "ai-tools/models": "stt:incus:Volume",
        "ai-tools/gpu-server": "stt:incus:Instance",
    }
    for name, kind in types.items():
        assert (registered[name].type, registered[name].parent) == (kind, "ai-tools")
    for command in run(monkeypatch, "gpu").commands.values():
        alone = command.name in KEYS
        assert (command.parent == "stt-gpu") == alone, command.name


def test_what_is_in_a_machine_comes_after_it_and_goes_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commands = run(monkeypatch, "gpu").commands
    for name, command in commands.items():
        machine = "/".join(name.split("/")[:2])
        if name.count("/") >= 2 and f"{machine}/instance" in commands and "instance" not in name:
            assert f"{machine}/instance" in command.dependencies, name
            assert command.request.deletedWith.endswith(f"::{machine}/instance"), name


def test_a_service_is_installed_then_configured_then_verified(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commands = run(monkeypatch, "gpu").commands
    assert "ai-tools/gpu-server/base_system/install" in commands[f"{STT}/install"].dependencies
    assert f"{STT}/install" in commands[f"{STT}/model"].dependencies
    assert {f"{STT}/install", f"{STT}/model", f"{STT}/secrets"} <= set(
        commands[f"{STT}/configure"].dependencies
    )
    assert f"{STT}/configure" in commands[f"{STT}/verify"].dependencies


def test_a_renamed_project_replaces_what_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = run(monkeypatch, "gpu").commands
    for name in (
        "profile/default",
        "profile/nvidia-compute",
        "gpu-server/instance",
    ):
        triggers = commands[f"ai-tools/{name}"].request.propertyDependencies["triggers"].urns
        assert "ai-tools/project" in [urn.split("::")[-1] for urn in triggers], name


@pytest.mark.parametrize("secret", [False, True])
def test_the_key_is_secret_wherever_it_goes(monkeypatch: pytest.MonkeyPatch, secret: bool) -> None:
    own: dict[str, Any] = {"apiKey": API_KEY} if secret else {}
    program = run(monkeypatch, "gpu", secret=secret, **own)
    assert program.outputs["stt_api_key"] == API_KEY
    holders = set()
    for command in program.commands.values():
        for key, value in command.inputs.items():
            if API_KEY in str(value):
                holders.add(command.name)
                assert key == "stdin", command.name
                assert key in command.secret_inputs, command.name
                assert command.inputs["logging"] == "none", command.name
    assert holders == {f"{STT}/secrets", "ai-tools/webui/open_webui/secrets"}
    assert ("stt_server/key" in program.commands) == (not secret)


def test_the_made_key_is_a_secret_output_and_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    request = run(monkeypatch, "dev").commands["stt_server/key"].request
    assert set(request.additionalSecretOutputs) == {"stdout", "stderr"}
    assert "create" in request.ignoreChanges


def test_a_key_in_plain_text_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(pulumi.RunError, match="set --secret stt:apiKey") as caught:
        run(monkeypatch, "dev", apiKey=API_KEY)
    assert API_KEY not in str(caught.value)


def test_the_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = run(monkeypatch, "gpu").outputs
    assert outputs == {
        "stt_url": "http://10.120.0.1:8000/v1",
        "stt_health_url": "http://10.120.0.1:8000/health",
        "stt_model": "large-v3-turbo",
        "stt_quantization": "float16",
        "stt_api_key": API_KEY,
        "stt_check": {"text": "one two three", "seconds": 0.1, "real_time_factor": 0.08},
        "stt_times": {},
        "stt_curl": 'curl -H "Authorization: Bearer $STT_API_KEY" -F file=@recording.wav '
        "--form-string model=large-v3-turbo http://10.120.0.1:8000/v1/audio/transcriptions",
        "ollama_url": "http://10.120.0.1:11434",
        "webui_url": "http://localhost:3000",
        "webui_admin_email": "admin@incus-stt.internal",
        "webui_admin_password": "password-of-the-test",
        "webui_check": {"text": "one two three", "seconds": 0.1, "real_time_factor": 0.08},
    }


def test_disabled_stt_leaves_the_rest_the_key_and_the_models(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = run(monkeypatch, "gpu", enabled=False)
    assert not any(name.startswith(STT) for name in program.commands)
    assert {"stt_server/key", "ai-tools/volume/models"} <= set(program.commands)
    configure = program.commands["ai-tools/webui/open_webui/configure"].inputs["stdin"]
    assert "10.120.0.1:8000" not in str(configure)
    assert "/speech-to-text-is-switched-off" in str(configure)
    assert "stt_url" not in program.outputs


REFUSED: list[tuple[str, Live, dict[str, Any], str]] = [
    ("gpu", Live([], {}, {}, ["default"]), {}, "make up STACK=cpu"),
    ("dev", Live([], {}, {}, ["fast", "slow"]), {}, "There are: fast, slow"),
    (
        "dev",
        Live([], {"ai-tools": {}}, {}, ["default"]),
        {},
        "project ai-tools that incus-stt did not",
    ),
    (
        "dev",
        Live([], {}, {"net-ai-tools": {"ipv4.address": "10.120.0.254/24"}}, ["default"]),
        {},
        "network net-ai-tools that incus-stt did not make",
    ),
    (
        "dev",
        Live([], {}, {"lab": {"ipv4.address": "10.120.0.1/16"}}, ["default"]),
        {},
        "10.120.0.0/24 is taken by the network lab",
    ),
    (
        "dev",
        Live([], {}, {}, ["default"], interfaces=["lo", "net-ai-tools"]),
        {},
        "interface net-ai-tools that Incus does not manage",
    ),
    ("dev", EMPTY_HOST, {"port": 0, "language": "xx"}, "2 problems in the configuration"),
]


@pytest.mark.parametrize(("stack", "live", "settings", "expected"), REFUSED)
def test_what_cannot_be_is_refused_before_anything_is_registered(
    stack: str,
    live: Live,
    settings: dict[str, Any],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(pulumi.RunError, match=expected):
        run(monkeypatch, stack, live, **settings)


def test_ssh_is_the_same_script_with_another_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    here = run(monkeypatch, "dev").commands
    there = run(monkeypatch, "dev", connection="ssh:me@host").commands
    for name, command in there.items():
        if name in ("stt_server/key", *SENT):
            continue  # a key is made here, and files are sent from here
        assert command.inputs["interpreter"][0] == "ssh", name
        assert command.inputs["interpreter"][-2:] == ["--", "me@host"], name
        assert command.inputs["create"] == here[name].inputs["create"], name
    assert "| ssh -o" in there[f"{STT}/server"].inputs["create"].replace("\n  ", " ")


def test_a_remote_is_named_in_every_call_of_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, command in run(monkeypatch, "dev", connection="incus:lab").commands.items():
        if name != "stt_server/key":
            assert "INCUS_REMOTE=lab incus " in command.inputs["create"], name
