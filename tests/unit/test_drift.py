"""Drift is found where a Command is registered: what it covers, what it says, what it is not."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.difference import Difference
from components.state import STACK_ID
from declaration.connection import Connection
from host.client import HostError
from host.egress import SUFFIX, Egress
from host.firewall import RULE
from host.objects import BASE_IMAGE, IMAGE, UUID
from host.read import AGENT, AppliedStep, Live, MachineState, parse_live
from host.reading import read_live
from tests.unit.program import (
    EMPTY_HOST,
    KEPT,
    Program,
    first_run,
    host_after,
    is_firewall,
    place_of,
    run,
    with_differences,
    without,
)
from tests.unit.values import STACKS

MACHINE = "ai-tools/gpu-server"
STT, WEBUI = f"{MACHINE}/stt_server", "ai-tools/webui/open_webui"
MEMORY = Difference("config.limits.memory", "4GiB", "8GiB")


@pytest.fixture
def first() -> Program:
    """The stack ``gpu``, applied once."""
    return first_run("gpu")


@pytest.fixture
def live(first: Program) -> Live:
    """The host after that."""
    return host_after(first)


COMMANDS = first_run("gpu").commands
CLOSED = "ai-tools/acl/closed"
#: CLOSED takes away what there is too much, and makes nothing.
ON_THE_HOST = sorted(name for name in COMMANDS if name not in (*KEPT, CLOSED))


def group(name: str) -> str:
    """What sort of thing a Command makes: a type of object, an agent, a kind of step."""
    place = place_of(COMMANDS[name])
    if is_firewall(name):
        return "firewall"
    return place[0] if place else COMMANDS[name].step_kind or "agent"


def gone(name: str) -> list[str]:
    """The drift of a Command whose thing is gone."""
    if place := place_of(COMMANDS[name]):
        return [f"{place[0]} {place[2]}: not there -> there"]
    if is_firewall(name):
        return [f"{RULE}: not there -> there"]
    if group(name) == "agent":
        return [f"agent {AGENT}: does not answer -> answers"]
    return ["step: not applied -> applied"]


@cache
def all_gone(sort: str) -> Program:
    """A run after every object, every agent or every step is gone from the host."""
    first = first_run("gpu")
    live = host_after(first)
    for name, command in COMMANDS.items():
        mine = "step" if command.step_kind else "agent" if name.endswith("/agent") else "object"
        if name in ON_THE_HOST and mine == sort:
            live = without(live, name, command)
    return run("gpu", live, first, late=host_after(first).machines)


@pytest.mark.parametrize("name", ON_THE_HOST)
def test_whatever_is_gone_from_the_host_is_drift(name: str) -> None:
    """Of every Command that there is: another resource is covered without another line."""
    sort = {"agent": "agent"}.get(group(name), "step" if COMMANDS[name].step_kind else "object")
    found = all_gone(sort)
    assert found.drift[name] == gone(name)
    assert found.done[name] == "update"


@pytest.mark.sweep
@pytest.mark.parametrize("name", {group(name): name for name in reversed(ON_THE_HOST)}.values())
def test_what_is_gone_is_the_drift_of_nothing_else(name: str, first: Program, live: Live) -> None:
    drift = run("gpu", without(live, name, COMMANDS[name]), first, late=live.machines).drift
    assert drift.pop(name) == gone(name)
    if group(name) == "instance":  # its agent has gone with it
        agent = name.replace("/instance", "/agent")
        assert drift.pop(agent) == [f"machine {name.split('/')[1]}: not there -> there"]
    # Besides it only what has to start again after it.
    part = name.rpartition("/")[2]
    for other, lines in drift.items():
        assert COMMANDS[other].step_kind == "service", other
        assert lines == [f"restart: needed -> done after {part}"], other


def test_a_rule_too_much_is_closed_and_one_too_few_is_made(first: Program, live: Live) -> None:
    place = ("acl", "default", "net-ai-tools")
    acl = live.objects[place]
    rule = {"action": "allow", "state": "enabled"}
    rules = {"egress": acl["egress"][1:], "ingress": [*acl["ingress"], rule]}
    changed = replace(live, objects={**live.objects, place: {**acl, **rules}})
    found = run("gpu", changed, first)
    assert found.done == {CLOSED: "update", "ai-tools/acl": "update"}
    [missing], [extra] = found.drift["ai-tools/acl"], found.drift[CLOSED]
    assert missing.startswith("egress: (none) -> {action: allow, ")
    assert extra == "ingress: {action: allow, state: enabled} -> (none)"


def test_what_is_on_no_host_is_never_drift(first: Program) -> None:
    found = run("gpu", EMPTY_HOST, first)
    assert set(found.drift) == set(ON_THE_HOST) == set(found.done) - {CLOSED}


def test_a_machine_that_is_gone_has_lost_its_steps(first: Program, live: Live) -> None:
    found = without(live, f"{MACHINE}/instance", first.commands[f"{MACHINE}/instance"])
    found = without(found, f"{MACHINE}/agent", first.commands[f"{MACHINE}/agent"])
    drift = run("gpu", found, first).drift
    assert set(drift) == {name for name in ON_THE_HOST if name.startswith(f"{MACHINE}/")}
    assert drift[f"{STT}/user"] == ["machine gpu-server: not there -> there"]


@pytest.fixture
def stopped(first: Program, live: Live) -> Live:
    """The host with a machine that somebody has stopped."""
    place = ("instance", "ai-tools", "gpu-server")
    objects = {**live.objects, place: {**live.objects[place], "status": "Stopped"}}
    found = without(live, f"{MACHINE}/agent", first.commands[f"{MACHINE}/agent"])
    return replace(found, objects=objects)


STARTED = {f"{MACHINE}/instance": ["status: Stopped -> Running"]}


def test_a_stopped_machine_is_started_and_nothing_more(
    first: Program, live: Live, stopped: Live
) -> None:
    found = run("gpu", stopped, first, late=live.machines)
    assert found.drift == STARTED
    assert list(found.done) == list(STARTED)


def test_a_preview_says_that_a_stopped_machine_was_not_checked(
    first: Program, live: Live, stopped: Live
) -> None:
    found = run("gpu", stopped, first, preview=True, late=live.machines)
    assert found.drift == STARTED
    assert "ai-tools/gpu-server does not answer: drift inside it was not checked" in str(found.log)
    assert "does not answer" not in str(run("gpu", live, first, preview=True).log)


def test_what_differs_in_a_stopped_machine_is_restored_once_it_runs(
    first: Program, live: Live, stopped: Live
) -> None:
    program, service = f"{STT}/program", f"{STT}/service"
    differing = with_differences(live, program, Difference("/opt/x", "not there", "there"))
    found = run("gpu", stopped, first, late=differing.machines)
    assert found.drift == {
        **STARTED,
        program: ["/opt/x: not there -> there"],
        service: ["restart: needed -> done after program"],
    }
    assert set(found.done) >= set(found.drift)
    lost = without(live, f"{STT}/secrets", first.commands[f"{STT}/secrets"])
    assert run("gpu", stopped, first, late=lost.machines).drift == {
        **STARTED,
        f"{STT}/secrets": ["step: not applied -> applied"],
    }


def test_a_machine_that_does_not_answer_once_started_is_set_up_again(
    first: Program, stopped: Live
) -> None:
    drift = run("gpu", stopped, first).drift
    assert drift.pop(f"{MACHINE}/agent") == [f"agent {AGENT}: does not answer -> answers"]
    assert drift.pop(f"{MACHINE}/instance") == STARTED[f"{MACHINE}/instance"]
    assert set(drift) == {name for name in first.steps if name.startswith(f"{MACHINE}/")}
    assert set(map(tuple, drift.values())) == {("step: not applied -> applied",)}


def changed(live: Live, kind: str, name: str, **more: Any) -> Live:
    """The host with an object that somebody has changed."""
    place = (kind, "default" if kind == "network" else "ai-tools", name)
    return replace(live, objects={**live.objects, place: {**live.objects[place], **more}})


def configured(live: Live, status: str = "Running", **config: str) -> Live:
    """The host with other configuration keys of the machine."""
    before = live.objects["instance", "ai-tools", "gpu-server"]["config"]
    return changed(live, "instance", "gpu-server", status=status, config={**before, **config})


@pytest.mark.parametrize("status", ["Running", "Stopped"])
def test_a_machine_that_was_made_anew_has_lost_its_steps(
    first: Program, live: Live, status: str
) -> None:
    """As a run leaves it that was cut off: all there is of it is a container of that name."""
    found = without(live, f"{MACHINE}/agent", first.commands[f"{MACHINE}/agent"])
    drift = run("gpu", configured(found, status=status, **{UUID: "another"}), first).drift
    assert set(drift) == {name for name in first.commands if name.startswith(f"{MACHINE}/")}
    assert drift[f"{MACHINE}/instance"] == [
        "machine gpu-server: another one -> the one that was set up"
    ]
    assert drift[f"{STT}/service"] == ["step: not applied -> applied"]


def test_a_machine_that_was_rebuilt_has_lost_its_steps(first: Program, live: Live) -> None:
    noted = {IMAGE: "1a2b", BASE_IMAGE: "1a2b"}
    assert run("gpu", configured(live, **noted), first).drift == {}
    drift = run("gpu", configured(live, **{**noted, BASE_IMAGE: "3c4d"}), first).drift
    assert drift[f"{MACHINE}/instance"] == [
        "machine gpu-server: from another image -> the one that was set up"
    ]


@pytest.mark.parametrize("os", ["Debian 12", "Ubuntu 24.04"])
def test_a_machine_from_a_stand_in_is_named_where_its_distribution_is_another(
    first: Program, live: Live, os: str
) -> None:
    made_from = {"image.variant": "incus-stt", "image.description": f"{os}, built on this host"}
    program = run("gpu", configured(live, **made_from), first)
    said = "gpu-server is Debian 12, which stands in for stt:image images:ubuntu/24.04."
    assert program.drift == {} and (said in str(program.log)) == (os == "Debian 12")


def test_an_object_is_compared_with_what_was_applied_last(first: Program, live: Live) -> None:
    by_hand = changed(live, "volume", "models", description="mine")
    assert run("gpu", by_hand, first).drift == {
        "ai-tools/volume/models": ["description: mine -> incus-stt"]
    }
    # Another setting is the preview's own difference, and not drift.
    again = run("gpu", live, first, webui={"publish": "0.0.0.0:8080"})
    steps = {f"ai-tools/webui/open_webui/{name}" for name in ("service", "verify")}
    assert (again.drift, set(again.done)) == ({}, {"ai-tools/webui/instance", *steps})
    # Both: the drift is what somebody changed.
    by_hand = changed(live, "instance", "webui", description="mine")
    both = run("gpu", by_hand, first, webui={"publish": "0.0.0.0:8080"})
    assert both.drift == {"ai-tools/webui/instance": ["description: mine -> (none)"]}


def test_a_step_s_differences_are_its_own(first: Program, live: Live) -> None:
    other = with_differences(live, f"{WEBUI}/network", MEMORY, Difference("b", "1", "2"))
    found = run("gpu", other, first)
    assert found.drift == {
        f"{WEBUI}/network": ["config.limits.memory: 4GiB -> 8GiB", "b: 1 -> 2"],
        f"{WEBUI}/service": ["restart: needed -> done after network"],
    }
    text = found.commands[f"{WEBUI}/network"].inputs["environment"]["DRIFT"]
    assert text.splitlines()[-1].startswith("@20")


def test_a_service_starts_again_after_what_was_restored_under_it(
    first: Program, live: Live
) -> None:
    both = with_differences(live, f"{STT}/program", MEMORY)
    both = with_differences(both, f"{STT}/model", MEMORY)
    found = run("gpu", both, first)
    assert found.drift[f"{STT}/service"] == ["restart: needed -> done after program, model"]
    # It runs again, and so does what follows every one of its runs.
    assert set(found.done) == {
        *(f"{STT}/{part}" for part in ("program", "model", "service", "verify")),
        f"{WEBUI}/verify",
    }
    # Its own differences say enough.
    own = with_differences(both, f"{STT}/service", Difference("speaches.service", "dead", "active"))
    assert run("gpu", own, first).drift[f"{STT}/service"] == ["speaches.service: dead -> active"]


def test_what_is_far_below_a_service_does_not_restart_it(first: Program, live: Live) -> None:
    found = run("gpu", with_differences(live, f"{MACHINE}/base_system/uv", MEMORY), first)
    assert set(found.drift) == {f"{MACHINE}/base_system/uv"}


@pytest.mark.parametrize("role", [STT, WEBUI])
def test_secrets_restart_their_service_themselves(role: str, first: Program, live: Live) -> None:
    found = run("gpu", with_differences(live, f"{role}/secrets", MEMORY), first)
    assert (set(found.drift), set(found.done)) == ({f"{role}/secrets"}, {f"{role}/secrets"})


@pytest.mark.parametrize(
    ("settings", "touched"),
    [
        pytest.param({"keepAlive": "7m"}, f"{STT}/service", marks=pytest.mark.sweep),
        ({"model": "tiny"}, f"{STT}/model"),
        ({"port": 8001}, f"{STT}/service"),
        pytest.param({"engine": "faster-whisper"}, f"{STT}/program", marks=pytest.mark.sweep),
        ({"pool": "fast"}, "ai-tools/volume/models"),
        ({"image": "images:debian/12"}, f"{MACHINE}/instance"),
        pytest.param({"connection": "incus:lab"}, f"{MACHINE}/instance", marks=pytest.mark.sweep),
        ({"connection": "ssh:me@host"}, f"{STT}/service"),
        ({"enabled": False}, f"{WEBUI}/service"),
        pytest.param(
            {"ollama": {"port": 11435}},
            f"{MACHINE}/ollama_server/service",
            marks=pytest.mark.sweep,
        ),
    ],
    ids=str,
)
def test_a_changed_setting_is_not_drift(
    settings: dict[str, Any], touched: str, first: Program, live: Live
) -> None:
    if "connection" in settings:
        live = EMPTY_HOST  # another host, which has nothing yet
    if "pool" in settings:  # only the new pool's volumes are read
        kept = {key: item for key, item in live.objects.items() if key[0] != "volume"}
        live = replace(live, objects=kept)
    found = run("gpu", live, first, **settings)
    assert found.drift == {}
    assert found.done[touched]


@pytest.mark.parametrize("renamed", ["machine", "domain"])
def test_another_name_is_not_drift(
    renamed: str, first: Program, live: Live, tmp_path: Path
) -> None:
    infra = yaml.safe_load((STACKS / "infra.yml").read_text())
    domains = infra["domains"]
    machines = domains["ai-tools"]["machines"]
    if renamed == "machine":
        box = machines.pop("gpu-server") | {"formerly": "gpu-server"}
        domains["ai-tools"]["machines"] = {"box": box, **machines}
    else:
        infra["domains"] = {"lab": domains["ai-tools"] | {"formerly": "ai-tools"}}
    (tmp_path / "infra.yml").write_text(yaml.safe_dump(infra, sort_keys=False))
    found = run("gpu", live, first, infra=str(tmp_path / "infra.yml"))
    assert found.drift == {}
    assert found.done[f"{STT}/service"] == "replace"


def test_drift_of_an_earlier_run_stays_as_it_is(first: Program, live: Live) -> None:
    """Taking it away would run every such command once more, for nothing."""
    other = changed(live, "instance", "webui", description="mine")
    other = with_differences(other, f"{WEBUI}/secrets", MEMORY)
    restored = run("gpu", other, first)
    assert set(restored.drift) == {"ai-tools/webui/instance", f"{WEBUI}/secrets"}
    after = run("gpu", host_after(restored), restored)
    assert after.done == {}
    assert after.drift == restored.drift  # in the state, where the preview shows no change


def test_the_same_drift_twice_is_restored_twice(first: Program, live: Live) -> None:
    other = changed(live, "instance", "webui", description="mine")
    restored = run("gpu", other, first)
    text = restored.commands["ai-tools/webui/instance"].inputs["environment"]["DRIFT"]
    earlier = text.partition("@")[0] + "@2001-01-01T00:00:00+00:00"
    restored.commands["ai-tools/webui/instance"].inputs["environment"]["DRIFT"] = earlier
    assert set(run("gpu", other, restored).done) == {"ai-tools/webui/instance"}


def test_a_step_by_another_stack_is_drift_where_it_is_taken_over(
    first: Program, live: Live
) -> None:
    other = with_differences(live, f"{WEBUI}/network", stack="another id")
    found = run("gpu", other, first, adopt=True)
    assert found.drift[f"{WEBUI}/network"] == ["applied by: another stack -> this stack"]


def test_what_was_applied_from_a_newer_state_is_drift() -> None:
    """An old state was restored: the machine has another key and other settings than it."""
    old = run("cpu", apiKey="key-of-the-old-state", secret=True)
    new = run("cpu", host_after(old), old, apiKey="key-of-the-new-state", secret=True, port=8100)
    found = run("cpu", host_after(new), old, apiKey="key-of-the-old-state", secret=True)
    others = "(others than this stack's state has, not shown) -> as the state has them"
    stt, webui = "ai-tools/gpu-server/stt_server", "ai-tools/webui/open_webui"
    for name in (f"{stt}/secrets", f"{webui}/secrets"):
        assert found.drift[name] == [f"secrets: {others}"], name
    for name in (f"{stt}/service", f"{webui}/service"):
        assert found.drift[name] == [
            "applied: something other than this stack's state has -> as it has it"
        ]
    assert "key-of" not in str(found.drift) + str(found.log)
    # An agent that does not tell its salt is one of an earlier version.
    machines = {k: replace(state, salt="") for k, state in host_after(new).machines.items()}
    silent = replace(host_after(new), machines=machines)
    assert f"{stt}/secrets" not in run("cpu", silent, old, apiKey="x" * 9, secret=True).drift
    assert run("cpu", host_after(old), old, apiKey="key-of-the-old-state", secret=True).drift == {}


def test_another_key_of_a_client_than_the_state_s_is_drift() -> None:
    old = run("cpu", clients=["phone"])
    new = run("cpu", host_after(old), old, clients=["phone", "tv"])
    found = run("cpu", host_after(new), old, clients=["phone"])
    others = "(others than this stack's state has, not shown) -> as the state has them"
    assert found.drift == {"ai-tools/gpu-server/stt_server/clients": [f"secrets: {others}"]}


def test_what_taking_over_changes_is_shown(live: Live) -> None:
    """An object that the state does not have, where `stt:adopt` says that it is taken over."""
    other = changed(live, "instance", "webui", description="theirs")
    name = "ai-tools/webui/instance"
    owner, line = run("gpu", other, adopt=True).drift[name]
    assert owner == f"owner: stt/gpu/{KEPT[STACK_ID]} -> this stack"
    assert line.startswith("description: theirs -> ")
    assert run("gpu", EMPTY_HOST, adopt=True).drift == {}


@pytest.mark.parametrize(("used", "opened"), [(False, True), (True, True), (False, False)])
def test_a_bridge_that_was_left_open_is_drift(
    used: bool, opened: bool, first: Program, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one that is open because somebody fetches, nor one that has closed since it was read."""
    monkeypatch.setattr(Egress, "is_used", lambda _: used)
    monkeypatch.setattr(Egress, "is_open", lambda _: opened)
    config = live.objects["network", "default", "net-ai-tools"]["config"]
    acls = f"net-ai-tools,net-ai-tools{SUFFIX}"
    found = changed(live, "network", "net-ai-tools", config={**config, "security.acls": acls})
    drift = run("gpu", found, first).drift
    line = f"config.security.acls: {acls} -> net-ai-tools"
    assert drift == ({"ai-tools/network": [line]} if opened and not used else {})


def test_an_address_that_is_not_held_any_more_is_drift(first: Program, live: Live) -> None:
    """A machine could then send in another one's name."""
    devices = live.objects["instance", "ai-tools", "webui"]["devices"]
    eth0 = devices["eth0"] | {"security.mac_filtering": "false"}
    del eth0["security.ipv4_filtering"]
    found = changed(live, "instance", "webui", devices={**devices, "eth0": eth0})
    assert run("gpu", found, first).drift == {
        "ai-tools/webui/instance": [
            "devices.eth0.security.ipv4_filtering: (none) -> true",
            "devices.eth0.security.mac_filtering: false -> true",
        ]
    }


@pytest.mark.parametrize(("filters", "warned"), [(False, True), (True, False), (None, False)])
def test_a_kernel_that_does_not_filter_within_a_bridge_is_warned_of(
    filters: bool | None, warned: bool, first: Program, live: Live
) -> None:
    found = run("gpu", replace(live, filters_bridges=filters), first)
    assert ("Within ai-tools every machine reaches every port" in str(found.log)) == warned
    assert ("modprobe br_netfilter" in str(found.log)) == warned


def test_what_a_machine_was_made_from_that_is_taken_over(first: Program, live: Live) -> None:
    """It stays as it is, whatever `stt:image` says."""
    live = configured(live, **{"image.description": "Alpine 3.19 amd64"})
    said = "gpu-server is taken over as it is, made from Alpine 3.19 amd64: stt:image (images:"
    found = run("gpu", live, adopt=True)
    assert said in str(found.log)
    assert "incus delete --force --project ai-tools gpu-server" in str(found.log)
    assert "taken over" not in str(run("gpu", live, first, adopt=True).log), "its own"
    assert "taken over" not in str(run("gpu", EMPTY_HOST, adopt=True).log)


def test_the_report_is_not_there_where_the_host_was_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STT_DRIFT_REPORT", str(tmp_path / "drift"))
    run("gpu", HostError("no daemon"), preview=True)
    assert not (tmp_path / "drift").exists()


def test_the_report_has_a_line_for_each_difference(
    first: Program, live: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "drift"
    monkeypatch.setenv("STT_DRIFT_REPORT", str(file))
    run("gpu", live, first)
    assert file.read_text() == ""
    other = with_differences(live, f"{WEBUI}/secrets", MEMORY, Difference("b", "1", "2"))
    run("gpu", other, first, preview=True)
    assert file.read_text() == (
        f"{WEBUI}/secrets: config.limits.memory: 4GiB -> 8GiB\n{WEBUI}/secrets: b: 1 -> 2\n"
    )


# What the host answers


def answers(machine: str) -> dict[str, str]:
    """What the script prints on a host with nothing but one machine."""
    texts = dict.fromkeys(("projects", "acls", "networks", "pools", "profiles", "instances"), "[]")
    return texts | {"resources": "{}", "machine lab box": machine}


SAID = json.dumps(
    {
        "steps": {"a/b": {"stack": "s", "digest": "d", "differences": [vars(MEMORY)]}},
        "answers": {"tags": {"models": []}},
    }
)
STATE = MachineState({"a/b": AppliedStep("s", "d", [MEMORY])}, {"tags": {"models": []}})


def test_an_agent_s_answer_is_read() -> None:
    assert parse_live(answers(SAID)).machines == {("lab", "box"): STATE}


def test_the_host_s_addresses_are_read() -> None:
    said = """\
1: lo    inet 127.0.0.1/8 scope host lo\\       valid_lft forever preferred_lft forever
2: eth0@if5    inet 10.0.0.5/24 brd 10.0.0.255 scope global eth0\\       valid_lft forever
2: eth0@if5    inet 10.0.1.5/24 scope global secondary eth0\\       valid_lft forever
9: tun0    inet 10.8.0.2 peer 10.8.0.1/32 scope global tun0\\       valid_lft forever
"""
    found = parse_live({**answers(SAID), "addresses": said}).addresses
    assert found == {
        "lo": ["127.0.0.1/8"],
        "eth0": ["10.0.0.5/24", "10.0.1.5/24"],
        "tun0": ["10.8.0.2"],
    }
    assert parse_live(answers(SAID)).addresses == {}


@pytest.mark.parametrize("said", ["", "{", "[]", '{"steps": {"a": {}}}', "Error: not running"])
def test_an_answer_that_was_cut_off_is_not_an_answer(said: str) -> None:
    assert parse_live(answers(said)).machines == {}


#: A client of a host: before the machine that answers, some are about to stop, one has no agent.
#: The answer is lost once.
CLIENT = """#!/bin/sh
echo "$INCUS_REMOTE $*" >>WORK/words
case "$*" in
  *"exec box "*) [ ! -e WORK/asked ] || cat WORK/said; touch WORK/asked ;;
  *"exec new "*) echo "python3: can't open file" >&2; exit 2 ;;
  *"exec gone"*) echo "Error: Instance is not running" >&2; exit 255 ;;
  list*) printf 'lab,gone%s\\n' $(seq 40); printf 'lab,new\\nlab,box\\n' ;;
  *resources) echo '{}' ;;
  *"/volumes/"*) echo "Error: no such pool" >&2; exit 1 ;;
  *profiles*) FAILS echo '[]' ;;
  *) echo '[]' ;;
esac
"""


def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str = "") -> Path:
    """A host whose client prints what it is told; the file with its words."""
    (tmp_path / "said").write_text(SAID)
    file = tmp_path / "incus"
    file.write_text(CLIENT.replace("WORK", str(tmp_path)).replace("FAILS", fails))
    file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path / "words"


@pytest.mark.parametrize("connection", [Connection("local"), Connection("incus", "far")], ids=str)
def test_the_host_is_read_in_one_go(
    connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = client(tmp_path, monkeypatch)
    live = read_live(connection, "de fault")
    assert live.machines == {("lab", "box"): STATE}
    calls = words.read_text().splitlines()
    assert {line.split(" ")[0] for line in calls} == {connection.target}
    # One client before the others: it may be the first that ever runs there.
    assert (calls[0] == "far query /1.0") == (connection.kind == "incus")
    asked = [line for line in calls if " exec " in line]
    assert len(asked) == 43 and all(f"python3 -IS {AGENT} check" in line for line in asked)
    [listed] = [line for line in calls if " list " in line]
    assert "user.managed-by=incus-stt" in listed and "status=running" in listed


def test_a_host_that_does_not_say_everything_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client(tmp_path, monkeypatch, "echo 'Error: permission denied' >&2; exit 1;")
    with pytest.raises(HostError, match="this user may not use Incus"):
        read_live(Connection("local"), "default")
