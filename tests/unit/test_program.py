"""The whole program against Pulumi's mocks: what it registers, how, and in which order.

``UPDATE_PLANS=1 pytest tests/unit`` writes ``plans/`` anew; read the diff.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pulumi
import pytest
import yaml

import roles.ollama_server
from components.state import STACK_ID
from declaration.artifacts import LockedFile, locked
from host.client import HostError
from host.objects import MARK, OWNER
from host.read import Live
from tests.unit.program import (
    API_KEY,
    CHECK,
    EMPTY_HOST,
    KEPT,
    Program,
    Registered,
    first_run,
    host_after,
    host_with,
    place_of,
    plain,
    plan_text,
    run,
)
from tests.unit.values import STACKS as STACK_FILES

PLANS = Path(__file__).parent / "plans"
DOMAIN, MACHINE = "ai-tools", "ai-tools/gpu-server"
STT, WEBUI = f"{MACHINE}/stt_server", "ai-tools/webui/open_webui"
STACKS = ("dev", "cpu", "gpu")


@pytest.mark.parametrize("stack", STACKS)
def test_a_stack_has_exactly_these_resources(stack: str) -> None:
    found, file = plan_text(first_run(stack)), PLANS / f"{stack}.txt"
    if os.environ.get("UPDATE_PLANS"):
        file.write_text(found)
    assert found == file.read_text()


def test_gpu_8gb_differs_from_gpu_only_in_the_compute_type() -> None:
    large, small = first_run("gpu").commands, run("gpu-8gb").commands
    assert set(large) == set(small)
    different = {name for name in large if large[name].stdin != small[name].stdin}
    assert different == {f"{STT}/service"}
    wanted = large[f"{STT}/service"].data
    wanted["spec"]["variables"]["WHISPER__COMPUTE_TYPE"] = "int8_float16"
    assert small[f"{STT}/service"].data == wanted


@pytest.mark.parametrize("stack", STACKS)
def test_a_second_run_changes_nothing(stack: str) -> None:
    first = first_run(stack)
    second = run(stack, host_after(first), first)
    assert (second.done, second.drift) == ({}, {})
    assert second.outputs == first.outputs


def test_every_command_replaces_by_deleting_first() -> None:
    for command in first_run("gpu").commands.values():
        assert command.request.deleteBeforeReplace, command.name
        assert command.inputs["addPreviousOutputInEnv"] is False, command.name


def test_components_are_parents_of_what_they_make() -> None:
    program = first_run("gpu")
    kinds = {
        DOMAIN: ("stt:incus:Domain", "stt-gpu"),
        MACHINE: ("stt:incus:Machine", DOMAIN),
        STT: ("stt:machine:Role", MACHINE),
    }
    for name, kind in kinds.items():
        assert (program.registered[name].type, program.registered[name].parent) == kind
    for name, command in program.commands.items():
        if name in KEPT:
            assert command.parent == "stt-gpu", name
        elif command.step_kind:
            assert command.parent == name.rpartition("/")[0], name
        elif name.count("/") == 2 and not name.startswith(
            ("ai-tools/acl", "ai-tools/profile", "ai-tools/volume")
        ):
            assert command.parent == "/".join(name.split("/")[:2]), name
        else:
            assert command.parent == DOMAIN, name


def test_what_is_in_a_machine_comes_after_its_agent_and_goes_with_the_machine() -> None:
    program = first_run("gpu")
    for machine in (MACHINE, "ai-tools/webui"):
        agent = program.commands[f"{machine}/agent"]
        assert f"{machine}/instance" in agent.dependencies
        assert agent.request.deletedWith.endswith(f"::{machine}/instance")
    for name, step in program.steps.items():
        machine = "/".join(name.split("/")[:2])
        assert f"{machine}/agent" in step.dependencies, name
        assert step.request.deletedWith.endswith(f"::{machine}/instance"), name


def test_a_new_machine_has_its_agent_and_every_step_replaced() -> None:
    """What a machine holds is gone with it; its agent's id is among each step's triggers."""
    program = first_run("gpu")
    for name, step in program.steps.items():
        owners = step.request.propertyDependencies["triggers"].urns
        agent_name = "/".join(name.split("/")[:2]) + "/agent"
        assert [urn.split("::")[-1] for urn in owners] == [agent_name], name


def test_a_service_is_installed_then_configured_then_verified() -> None:
    steps = first_run("gpu").steps
    assert f"{MACHINE}/base_system/uv" in steps[f"{STT}/packages"].dependencies
    assert f"{STT}/packages" in steps[f"{STT}/program"].dependencies
    assert f"{STT}/program" in steps[f"{STT}/model"].dependencies
    wanted = {f"{STT}/{part}" for part in ("program", "model", "secrets", "server", "user")}
    assert wanted <= set(steps[f"{STT}/service"].dependencies)
    assert f"{STT}/service" in steps[f"{STT}/verify"].dependencies


def all_needs(program: Program, name: str) -> set[str]:
    """Everything that comes before a resource."""
    found: set[str] = set()
    ahead = [name]
    while ahead:
        new = set(program.registered[ahead.pop()].dependencies) - found
        found |= new
        ahead += new
    return found


@pytest.mark.sample(2)
@pytest.mark.parametrize("stack", [*STACKS, "production", "pool"])
def test_the_state_is_in_order_whatever_the_run_before_has_written(stack: str) -> None:
    """A run with ``--target`` keeps what the state says of the rest, its dependencies too.

    What was registered after something else must wait for it in every run: the engine refuses a
    state where a dependency comes later, and nothing works on it any more.
    """
    first = first_run(stack)
    second = run(stack, host_after(first), first)
    for name in first.commands:
        assert set(first.registered[name].dependencies) <= all_needs(second, name), name


@pytest.mark.parametrize("stack", STACKS)
def test_steps_that_have_nothing_to_do_with_each_other_run_side_by_side(stack: str) -> None:
    program = first_run(stack)
    for name, step in program.steps.items():
        kinds = {each: program.steps[each].step_kind for each in all_needs(program, name)
                 if each in program.steps}  # fmt: skip
        if step.step_kind in ("upload", "user", "packages"):
            assert not set(kinds.values()) & {"service", "model", "upload"}, name
        if step.step_kind in ("upload", "user", "files") and not name.endswith("/signpost"):
            # Files are brought while packages are installed; the signpost tells what runs.
            assert not set(kinds.values()) & {"packages", "program", "service"}, name
        if step.step_kind in ("program", "model"):
            assert "service" not in kinds.values(), name
        if step.step_kind in ("packages", "program"):
            machines = {"/".join(each.split("/")[:2]) for each in kinds}
            assert machines <= {"/".join(name.split("/")[:2])}, name


def test_a_renamed_project_replaces_what_is_in_it() -> None:
    commands = first_run("gpu").commands
    for name in ("profile/default", "profile/nvidia-compute", "gpu-server/instance"):
        triggers = commands[f"ai-tools/{name}"].request.propertyDependencies["triggers"].urns
        assert "ai-tools/project" in [urn.split("::")[-1] for urn in triggers], name


# Secrets


@pytest.mark.parametrize("given", [False, True], ids=["made", "given"])
def test_a_secret_is_only_on_stdin_and_encrypted(given: bool) -> None:
    own: dict[str, Any] = (
        {"apiKey": API_KEY, "adminPassword": KEPT["open_webui/admin-password"]} if given else {}
    )
    program = run("gpu", secret=given, **own)
    assert program.outputs["stt_api_key"] == API_KEY
    holders: dict[str, set[str]] = {}
    for name, value in KEPT.items():
        if name == STACK_ID:
            continue
        for command in program.commands.values():
            for key, item in command.inputs.items():
                if value in str(item):
                    holders.setdefault(name, set()).add(command.name)
                    assert key == "stdin", command.name
                    assert command.secret_inputs == {"stdin"}, command.name
                    assert command.inputs["logging"] == "none", command.name
                    assert set(command.request.additionalSecretOutputs) >= {"stdout"}, command.name
    assert holders == {
        "stt_server/key": {f"{STT}/secrets", f"{WEBUI}/secrets"},
        "open_webui/session-key": {f"{WEBUI}/secrets"},
        "open_webui/admin-password": {f"{WEBUI}/secrets", f"{WEBUI}/administrator"},
    }
    for name in ("stt_server/key", "open_webui/admin-password"):
        assert (name in program.commands) == (not given)


def test_what_is_not_secret_is_shown_in_a_preview() -> None:
    for name, command in first_run("gpu").commands.items():
        assert bool(command.secret_inputs) == name.endswith(("/secrets", "/administrator")), name


@pytest.mark.parametrize("name", [name for name in KEPT if name != STACK_ID])
def test_a_made_secret_is_a_secret_output_and_is_kept(name: str) -> None:
    first = first_run("gpu")
    request = first.commands[name].request
    assert set(request.additionalSecretOutputs) == {"stdout", "stderr"}
    assert "create" in request.ignoreChanges


@pytest.mark.parametrize("connection", ["ssh:me@host", "incus:lab"])
def test_secrets_and_the_stack_s_id_outlive_another_connection(connection: str) -> None:
    """Another id would make the machines somebody else's; another key would end every client."""
    first = first_run("gpu")
    again = run("gpu", EMPTY_HOST, first, connection=connection)
    assert not set(again.done) & set(KEPT)
    for name in KEPT:
        assert again.commands[name].stdout == first.commands[name].stdout


@pytest.mark.parametrize("setting", ["apiKey", "adminPassword"])
def test_a_secret_in_plain_text_is_refused(setting: str) -> None:
    given: dict[str, Any] = {setting: API_KEY}
    with pytest.raises(pulumi.RunError, match=f"set --secret stt:{setting}") as caught:
        run("cpu", **given)
    assert API_KEY not in str(caught.value)


# Constant command lines

CHANGED: dict[str, Any] = {
    "model": "tiny",
    "language": "de",
    "quantization": "float32",
    "keepAlive": "7m",
    "port": 8001,
    "ollama": {"keepAlive": "1h", "port": 11435, "models": ["tiny"]},
    "webui": {"port": 3001, "signup": True, "publish": "0.0.0.0:8080", "adminEmail": "b@c.de"},
    "sources": {"ollama": "https://mirror.example/o.tgz", "models": "https://hub.example"},
}


def lines(command: Registered) -> dict[str, Any]:
    return {key: plain(command.inputs.get(key)) for key in ("create", "delete", "interpreter")}


def test_no_setting_of_a_service_is_in_a_command_line() -> None:
    before, after = first_run("cpu").commands, run("cpu", **CHANGED).commands
    shared = set(before) & set(after)
    assert len(shared) > 30
    assert {name for name in shared if before[name].stdin != after[name].stdin} >= {
        f"{STT}/service",
        f"{STT}/model",
        f"{MACHINE}/ollama_server/service",
        f"{MACHINE}/ollama_server/program",
        f"{WEBUI}/service",
        f"{WEBUI}/secrets",
    }
    for name in shared:
        assert lines(before[name]) == lines(after[name]), name


def test_a_spec_is_only_on_stdin() -> None:
    """No text of a spec is in what runs, except for the names of machines and steps."""
    program = first_run("gpu")
    for name, step in program.steps.items():
        texts = {text for text in leaves(step.spec) if len(text) > 12}
        for text in texts:
            for line in ("create", "delete"):
                assert text not in step.inputs[line], (name, text)


def leaves(data: Any) -> list[str]:
    if isinstance(data, Mapping):
        return [text for item in data.values() for text in leaves(item)]
    if isinstance(data, list):
        return [text for item in data for text in leaves(item)]
    return [data] if isinstance(data, str) else []


@pytest.mark.parametrize("engine", ["speaches", "faster-whisper"])
def test_pulumi_shows_the_curl_line_whole(engine: str) -> None:
    """It cuts an output off after 150 characters, and half a line cannot be pasted."""
    line = run("cpu", engine=engine).outputs["stt_curl"]
    assert len(line) <= 150 and line.endswith("/audio/transcriptions")
    # What follows the pipe is seen in the list of processes.
    assert "STT_API_KEY" not in line.partition("|")[2]


@pytest.mark.parametrize(
    "engine", ["speaches", pytest.param("faster-whisper", marks=pytest.mark.sweep)]
)
def test_clients_have_keys_of_their_own(engine: str) -> None:
    """They come and go beside the one key, and no service restarts for them."""
    before = run("cpu", engine=engine)
    assert "stt_client_keys" not in before.outputs
    two = run("cpu", host_after(before), before, engine=engine, clients=["phone", "tv"])
    keys = {"phone": "key-of-phone", "tv": "key-of-tv"}
    assert two.outputs["stt_client_keys"] == keys
    assert two.outputs["stt_api_key"] == API_KEY
    step, names = f"{STT}/clients", [f"stt_server/client/{name}" for name in keys]
    assert two.changes(before) == {step: "update", **dict.fromkeys(names, "create")}
    (file,) = two.steps[step].spec["secrets"]
    assert json.loads(file["content"]) == keys and file["owner"] == "stt:stt"
    variables = two.steps[f"{STT}/service"].spec["variables"]
    assert variables["STT_CLIENT_KEYS_FILE"] == file["path"]
    one = run("cpu", host_after(two), two, engine=engine, clients=["tv"])
    assert one.changes(two) == {step: "update", names[0]: "delete"}
    assert one.outputs["stt_client_keys"] == {"tv": "key-of-tv"}
    none = run("cpu", host_after(one), one, engine=engine)
    assert none.changes(one) == {step: "update", names[1]: "delete"}
    # A file of no keys: one that somebody adds there is drift.
    assert [json.loads(file["content"]) for file in none.steps[step].spec["secrets"]] == [{}]
    assert step not in run("cpu", engine=engine, authentication="none").steps


def test_the_keys_of_clients_are_only_on_stdin_and_encrypted() -> None:
    program = run("cpu", clients=["phone"])
    holders = {n for n, each in program.commands.items() if "key-of-phone" in str(each.inputs)}
    assert holders == {f"{STT}/clients"}
    command = program.commands[f"{STT}/clients"]
    assert command.secret_inputs == {"stdin"} and command.inputs["logging"] == "none"
    assert set(command.request.additionalSecretOutputs) >= {"stdout"}
    assert "key-of-phone" not in str(program.log)


# Outputs


@pytest.mark.parametrize(
    ("host", "inside", "outside"),
    [
        ("0.0.0.0", "127.0.0.1", "10.120.0.1"),
        ("10.120.0.1", "10.120.0.1", "10.120.0.1"),
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
    ],
)
def test_health_verification_and_outputs_follow_the_address(
    host: str, inside: str, outside: str, tmp_path: Path
) -> None:
    infra = yaml.safe_load((STACK_FILES / "infra.cpu.yml").read_text())
    del infra["domains"]["ai-tools"]["machines"]["webui"]
    (tmp_path / "infra.yml").write_text(yaml.safe_dump(infra))
    found = run("cpu", infra=str(tmp_path / "infra.yml"), host=host)
    service, verify = (found.steps[f"{STT}/{part}"].spec for part in ("service", "verify"))
    assert service.get("host", "0.0.0.0") == host
    assert {urlsplit(each["url"]).netloc for each in service["health"]} == {f"{inside}:8000"}
    assert verify["url"] == found.outputs["stt_url"] == f"http://{outside}:8000/v1"
    assert found.outputs["stt_health_url"] == f"http://{outside}:8000/health"


def test_a_preview_says_how_much_is_downloaded() -> None:
    """Ollama's models by their names (test_planner.py)."""
    steps = first_run("cpu").steps
    assert steps[f"{STT}/model"].spec["download"] == 488
    for program in (f"{STT}/program", "ai-tools/webui/open_webui/program"):
        sizes = steps[program].spec["downloads"]
        assert sizes and all(size > 100_000_000 for size in sizes.values())


def test_a_preview_says_how_much_ollama_itself_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    program = "ai-tools/gpu-server/ollama_server/program"

    def said() -> str:
        return str(run("cpu").steps[program].spec["description"])

    lock = locked()
    entry = lock.artifacts["pkg:github/ollama/ollama"]
    version = entry.version.removeprefix("v")
    for files, words in (
        ({}, "1 to 2 GB"),  # what releases usually have
        ({"ollama-linux-amd64.tar.zst": LockedFile(1_654_321_000)}, "1.7 GB"),
    ):
        known = {**lock.artifacts, entry.name: replace(entry, files=files)}
        changed = replace(lock, artifacts=known)
        monkeypatch.setattr(roles.ollama_server, "locked", partial(replace, changed))
        assert said() == f"Ollama {version} ({words} to download)"


def test_the_outputs() -> None:
    assert first_run("gpu").outputs == {
        "stt_url": "http://10.120.0.1:8000/v1",
        "stt_health_url": "http://10.120.0.1:8000/health",
        "stt_model": "large-v3-turbo",
        "stt_quantization": "float16",
        "stt_authentication": "key",
        "stt_api_key": API_KEY,
        "stt_check": CHECK,
        "stt_times": {"check": 0.5, "restart": 0.5},
        "stt_curl": 'echo "Authorization: Bearer $STT_API_KEY"|curl -H@- '
        "-F file=@recordings/one_two_three.wav -F model=whisper-1 "
        "10.120.0.1:8000/v1/audio/transcriptions",
        "ollama_url": "http://10.120.0.1:11434",
        "webui_url": "http://localhost:3000",
        "webui_admin_email": "admin@incus-stt.internal",
        "webui_admin_password": "password-of-the-test",
        "webui_check": CHECK,
        "allowed_traffic": [
            "host -> ai-tools",
            "ai-tools -> ai-tools/gpu-server: tcp 8000, 11434",
            "ai-tools -> ai-tools/webui: tcp 3000",
            "ai-tools -> internet: tcp 80, 443 (while up installs)",
        ],
    }


@pytest.mark.parametrize("engine", ["speaches", "faster-whisper"])
def test_where_no_key_is_asked_for_there_is_none(engine: str) -> None:
    program = run("cpu", engine=engine, authentication="none")
    assert not any(
        "stt_server/key" in name or f"{STT}/secrets" in name for name in program.commands
    )
    assert program.outputs["stt_authentication"] == "none"
    assert "stt_api_key" not in program.outputs
    assert "Authorization" not in program.outputs["stt_curl"]
    service, verify = (program.steps[f"{STT}/{part}"].spec for part in ("service", "verify"))
    assert "api-key" not in str(service) and verify["header_file"] == ""
    assert any(
        "stt:authentication is none: whoever reaches http://10.120.0.1:8000/v1" in warning
        for warning in program.log
    )


@pytest.mark.parametrize("engine", ["speaches", "faster-whisper"])
def test_the_name_speaches_leads_to_the_engine_that_runs(engine: str) -> None:
    step = run("cpu", engine=engine).steps.get(f"{STT}/signpost")
    assert (step is None) == (engine == "speaches")
    if step:
        [file] = step.spec["files"]
        assert file["path"] == "/usr/local/lib/systemd/system/speaches.service"
        assert f"not the STT engine of this machine: {engine} is" in file["content"]


def test_disabled_stt_leaves_the_rest_with_the_key_and_the_models() -> None:
    program = run("gpu", enabled=False)
    assert not any(name.startswith(STT) for name in program.commands)
    assert {"stt_server/key", "ai-tools/volume/models"} <= set(program.commands)
    variables = str(program.steps[f"{WEBUI}/service"].spec["variables"])
    assert "10.120.0.1:8000" not in variables
    assert "/speech-to-text-is-switched-off" in variables
    assert "stt_url" not in program.outputs
    assert program.outputs["webui_check"] == CHECK


# What is refused


def host_of_others(**more: Any) -> Live:
    return host_with(**{"pools": {"default": "dir"}, **more})


REFUSED: list[tuple[str, Live, dict[str, Any], str]] = [
    ("gpu", host_of_others(), {}, "make up STACK=cpu"),
    ("cpu", host_of_others(pools={"fast": "zfs", "slow": "dir"}), {}, "There are: fast, slow"),
    ("cpu", host_of_others(projects={"ai-tools": {}}), {}, "project ai-tools that incus-stt did"),
    (
        "cpu",
        host_of_others(networks={"net-ai-tools": {"ipv4.address": "10.120.0.254/24"}}),
        {},
        "network net-ai-tools that incus-stt did not make",
    ),
    (
        "cpu",
        host_of_others(networks={"lab": {"ipv4.address": "10.120.0.1/16"}}),
        {},
        "10.120.0.0/24 is taken by the network lab",
    ),
    (
        "cpu",
        host_of_others(addresses={"eth0": ["192.168.1.2/24", "10.120.0.17/16"]}),
        {},
        "10.120.0.0/24 is in use on the host's interface eth0 .10.120.0.17/16.. Give the domain",
    ),
    (
        "cpu",
        host_of_others(interfaces=["lo", "net-ai-tools"]),
        {},
        "interface net-ai-tools that Incus does not manage",
    ),
    ("cpu", EMPTY_HOST, {"port": 0, "language": "xx"}, "2 problems in the configuration"),
]


@pytest.mark.parametrize(("stack", "live", "settings", "expected"), REFUSED)
def test_what_cannot_be_is_refused_before_anything_is_registered(
    stack: str, live: Live, settings: dict[str, Any], expected: str
) -> None:
    with pytest.raises(pulumi.RunError, match=expected):
        run(stack, live, **settings)


def test_a_network_that_the_host_joins_later_stops_no_up() -> None:
    first = first_run("cpu")
    live = host_after(first)
    assert "net-ai-tools" in live.networks
    vpn = {"net-ai-tools": ["10.120.0.254/24"], "tun0": ["10.120.0.77/32"]}
    assert run("cpu", replace(live, addresses=vpn), first).done == {}


OTHER = "stt/theirs/99999999-8888-7777-6666-555555555555"


def owned_by(owner: str, live: Live, kind: str, name: str) -> Live:
    """The host with an object that names an owner."""
    place = (kind, "default" if kind == "network" else "ai-tools", name)
    found = live.objects.get(place, {"config": dict(MARK)})
    config = {**found["config"], OWNER: owner}
    return replace(live, objects={**live.objects, place: {**found, "config": config}})


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("project", "ai-tools"),
        ("network", "net-ai-tools"),
        ("profile", "default"),
        ("volume", "models"),
        ("instance", "gpu-server"),
    ],
)
def test_another_stack_s_objects_are_refused_unless_they_are_taken_over(
    kind: str, name: str
) -> None:
    said = rf"ai-tools: the stack theirs of the project stt \(.*\) owns the {kind} {name}\."
    with pytest.raises(pulumi.RunError, match=said) as caught:
        run("cpu", owned_by(OTHER, EMPTY_HOST, kind, name))
    assert "stt:adopt" in str(caught.value) and "stt:infra" in str(caught.value)
    first = first_run("cpu")
    theirs = owned_by(OTHER, host_after(first), kind, name)
    with pytest.raises(pulumi.RunError, match=said):
        run("cpu", theirs, first)
    found = run("cpu", theirs, first, adopt=True)
    mine = f"stt/cpu/{KEPT[STACK_ID]}"
    assert list(found.drift.values()) == [[f"owner: {OTHER} -> {mine}"]]
    assert set(found.done) == set(found.drift)


def test_a_stack_without_a_state_does_not_know_its_own_objects() -> None:
    with pytest.raises(pulumi.RunError, match="the stack cpu of the project stt"):
        run("cpu", host_after(first_run("cpu")))


def test_all_that_another_stack_owns_is_said_at_once() -> None:
    live = owned_by(OTHER, EMPTY_HOST, "project", "ai-tools")
    live = owned_by(OTHER, live, "instance", "gpu-server")
    with pytest.raises(pulumi.RunError, match="owns the project ai-tools, the instance gpu-server"):
        run("cpu", live)


def test_an_object_names_its_owner_when_it_is_made_and_when_it_goes() -> None:
    words = f" --owner stt/cpu/{KEPT[STACK_ID]}"
    objects = {n: c for n, c in first_run("cpu").commands.items() if place_of(c)}
    assert len(objects) == 9
    for name, command in objects.items():
        assert command.inputs["create"].endswith(words), name
        assert command.inputs.get("delete", words).endswith(words), name


def test_the_stack_s_id_goes_with_every_step() -> None:
    first = first_run("gpu")
    for name, step in run("gpu", host_after(first), first).steps.items():
        command = shlex.split(step.inputs["create"])
        if "egress" in command:  # the whole command is its last word
            command = shlex.split(command[-1])
        assert command[-2:] == ["--stack", KEPT[STACK_ID]], name


def test_a_preview_goes_on_without_the_host_and_up_does_not() -> None:
    no_host = HostError("there is no host")
    program = run("gpu", no_host, preview=True)
    assert any("Drift was not checked. there is no host" in line for line in program.log)
    assert any("float16 is assumed" in line for line in program.log)
    assert not program.drift
    with pytest.raises(pulumi.RunError, match="there is no host"):
        run("gpu", no_host)


# Connections


def here(name: str, command: Registered) -> bool:
    """Whether a command runs where Pulumi runs."""
    create = str(command.inputs["create"])
    return name in KEPT or " -m host " in create


def test_ssh_is_the_same_command_with_another_interpreter() -> None:
    before = first_run("cpu").commands
    for name, command in run("cpu", connection="ssh:me@host").commands.items():
        create, interpreter = command.inputs["create"], command.inputs["interpreter"]
        if name in KEPT:
            assert (create, interpreter) == (before[name].inputs["create"], ["/bin/sh", "-c"])
        elif here(name, command):
            assert interpreter == ["/bin/sh", "-c"], name
            assert "--connection ssh:me@host" in create, name
            wanted = create.replace("--connection ssh:me@host", "--connection local")
            assert wanted == before[name].inputs["create"], name
        else:
            assert interpreter[0] == "ssh" and interpreter[-2:] == ["--", "me@host"], name
            assert create == before[name].inputs["create"], name


def test_a_remote_is_named_in_every_call_of_the_client() -> None:
    for name, command in run("cpu", connection="incus:lab").commands.items():
        if name in KEPT:
            continue
        create = command.inputs["create"]
        if name.endswith("/agent"):
            assert "INCUS_REMOTE=lab incus " in create
        elif here(name, command):
            assert "--connection incus:lab" in create, name
        else:
            assert create.startswith("INCUS_REMOTE=lab incus "), name
            assert command.inputs["delete"].count("INCUS_REMOTE=lab incus ") == 2, name


def test_a_step_is_json_with_its_kind() -> None:
    for name, step in first_run("gpu").steps.items():
        data = json.loads(step.stdin)
        assert set(data) == {"kind", "spec"} | ({"secret"} if step.secret_inputs else set()), name


def test_several_machines_with_the_stt_role_share_wheels(tmp_path: Path) -> None:
    """A cache, so it goes with `destroy` where the models stay; one machine has no use for it."""
    infra = yaml.safe_load((STACK_FILES / "infra.cpu.yml").read_text())
    machines = infra["domains"][DOMAIN]["machines"]
    machines["second"] = {"roles": ["base_system", "stt_server"]}
    file = tmp_path / "infra.yml"
    file.write_text(yaml.safe_dump(infra))
    program = run("cpu", infra=str(file), keepModels=True)
    wheels, models = (program.commands[f"{DOMAIN}/volume/{name}"] for name in ("wheels", "models"))
    assert "delete" in wheels.inputs and "delete" not in models.inputs
    for name, has in (("gpu-server", True), ("second", True), ("webui", False)):
        devices = program.commands[f"{DOMAIN}/{name}/instance"].data["devices"]
        assert ("wheels" in devices) == has, name
    assert f"{DOMAIN}/volume/wheels" not in first_run("cpu").commands
