"""Exclusive AI access: what one domain's turn makes of the bridge's rules, and in which order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pulumi
import pytest

from review import effects
from review.changes import Change, Op
from stack.ai_access import HAND_OVER
from tests.unit.program import Program, host_after, run
from tests.unit.three_domains import HOME, topology

RULES = {
    "home": "10.120.0.0/24 -> 10.110.0.1/32 8000",
    "work": "10.130.0.0/24 -> 10.110.0.0/24 8000,11434",
}
ACL, OPENED = "ai/acl/ai", "ai/acl/ai-opened"
PLACE = ("acl", "default", "net-ai-exclusive-ai")


def rules(found: Program, acl: str, way: str = "ingress") -> list[str]:
    """An ACL's rules from and to machines of two domains."""
    return [
        f"{rule['source']} -> {rule['destination']} {rule['destination_port']}"
        for rule in found.commands[acl].data[way]
        if rule["description"].startswith("policy.")
    ]


@pytest.mark.parametrize(
    ("chosen", "holder"),
    [
        ("", "home"),
        pytest.param("home", "home", marks=pytest.mark.sweep),
        ("work", "work"),
        ("nobody", "nobody"),
    ],
)
def test_only_who_has_the_access_is_let_in(tmp_path: Path, chosen: str, holder: str) -> None:
    found = run("cpu", infra=topology(tmp_path), aiAccess=chosen)
    assert rules(found, ACL) == [RULES[name] for name in RULES if name == holder]
    assert rules(found, "ai/acl") == []
    # The bridge of the services decides, so that one rule changes and not two.
    sent = {name: rules(found, f"{name}/acl", "egress") for name in RULES}
    assert sent == {name: [rule] for name, rule in RULES.items()}
    config = found.commands["ai/network"].data["config"]
    assert config["security.acls"] == "net-ai,net-ai-exclusive-ai"
    assert found.commands["home/network"].data["config"]["security.acls"] == "net-home"
    shown = [text for text in found.outputs["allowed_traffic"] if " -> ai" in text]
    held = f" (held: {holder} has the AI access)"
    assert "home -> ai/gpu-server: tcp 8000" + held * (holder != "home") in shown
    assert "work -> ai: tcp 8000, 11434" + held * (holder != "work") in shown
    assert "ai -> ai/gpu-server: tcp 8000, 11434" in shown  # its own machines always
    assert "host -> ai" in shown


def test_where_it_is_open_all_are_let_in(tmp_path: Path) -> None:
    found = run("cpu", infra=topology(tmp_path, access="open", default=""))
    assert rules(found, "ai/acl") == list(RULES.values())
    assert not {ACL, HAND_OVER, OPENED} & set(found.commands)
    assert not any("held" in text for text in found.outputs["allowed_traffic"])


def test_the_next_one_is_let_in_last_after_the_models_are_unloaded(tmp_path: Path) -> None:
    file = topology(tmp_path)
    before = run("cpu", infra=file)
    after = run("cpu", host_after(before), before, infra=file, aiAccess="work")
    assert after.done == dict.fromkeys((ACL, HAND_OVER, OPENED), "update")
    assert after.drift == {}
    commands = after.commands
    create = {name: str(commands[name].inputs["create"]) for name in (ACL, HAND_OVER, OPENED)}
    assert " apply acl net-ai-exclusive-ai --project default --rules remove " in create[ACL]
    assert create[HAND_OVER] == ".venv/bin/python -m operations hand-over --stack cpu"
    assert create[OPENED].endswith(" open net-ai-exclusive-ai")
    # What was open to all is closed too, where the access has just become exclusive.
    assert {ACL, "ai/acl/closed"} <= set(commands[HAND_OVER].dependencies)
    assert {ACL, HAND_OVER} <= set(commands[OPENED].dependencies)
    assert ACL in commands["ai/network"].dependencies
    again = run("cpu", host_after(after), after, infra=file, aiAccess="work")
    assert again.done == {}


def test_what_was_cut_off_is_gone_on_with(tmp_path: Path) -> None:
    """The former one is closed and noted; nothing else is."""
    file = topology(tmp_path)
    before = run("cpu", infra=file)
    after = run("cpu", host_after(before), before, infra=file, aiAccess="work")
    noted = replace(before, registered={**before.registered, ACL: after.registered[ACL]})
    live = host_after(before)
    live = replace(live, objects={**live.objects, PLACE: {**live.objects[PLACE], "ingress": []}})
    for chosen in ("work", "home"):
        found = run("cpu", live, noted, infra=file, aiAccess=chosen)
        assert {HAND_OVER, OPENED} <= set(found.done), chosen


def test_rules_that_somebody_changes_are_drift(tmp_path: Path) -> None:
    file = topology(tmp_path)
    before = run("cpu", infra=file)
    live = host_after(before)
    acl = live.objects[PLACE]
    by_hand = {"action": "allow", "state": "enabled"}

    def changed(*ingress: dict[str, str]) -> Program:
        objects = {**live.objects, PLACE: {**acl, "ingress": list(ingress)}}
        return run("cpu", replace(live, objects=objects), before, infra=file)

    extra = changed(*acl["ingress"], by_hand)
    assert extra.drift == {ACL: ["ingress: {action: allow, state: enabled} -> (none)"]}
    # Who was let in by hand has asked something: it is forgotten too.
    assert extra.done == dict.fromkeys((ACL, HAND_OVER, OPENED), "update")
    gone = changed()
    assert list(gone.drift) == [OPENED] and list(gone.done) == [OPENED]


def test_in_another_environment_the_names_are_those_of_the_file(tmp_path: Path) -> None:
    found = run("cpu", infra=topology(tmp_path), environment="staging", aiAccess="work")
    [rule] = rules(found, "ai-staging/acl/ai")
    assert rule == "10.130.32.0/24 -> 10.110.32.0/24 8000,11434"
    config = found.commands["ai-staging/network"].data["config"]
    assert config["security.acls"] == "net1-ai,net1-ai-exclusive-ai"


def test_addresses_are_let_in_always_and_it_is_said(tmp_path: Path) -> None:
    rule = {"from": "192.168.1.0/24", "to": "ai/gpu-server", "ports": [8000]}
    other = {"from": "192.168.1.0/24", "to": "ai/webui", "ports": [3000]}
    found = run("cpu", infra=topology(tmp_path, HOME, rule, other))
    assert "192.168.1.0/24 -> 10.110.0.1/32 8000" in rules(found, "ai/acl")
    told = [text for text in found.log if "whoever has the AI access" in text]
    assert [text.split()[0] for text in told] == ["policy.1"]


def test_ways_to_other_machines_are_not_held(tmp_path: Path) -> None:
    rule = {"from": "work", "to": "ai/webui", "ports": [3000]}
    found = run("cpu", infra=topology(tmp_path, HOME, rule))
    assert rules(found, "ai/acl") == ["10.130.0.0/24 -> 10.110.0.2/32 3000"]


def test_a_machine_may_get_the_access_for_its_domain(tmp_path: Path) -> None:
    rule = {"from": "work/laptop", "to": "ai/gpu-server", "ports": [8000]}
    by_address = {"from": "10.130.0.1", "to": "ai/gpu-server", "ports": [11434]}
    found = run("cpu", infra=topology(tmp_path, HOME, rule, by_address), aiAccess="work")
    assert rules(found, ACL) == [
        "10.130.0.2/32 -> 10.110.0.1/32 8000",
        "10.130.0.1/32 -> 10.110.0.1/32 11434",
    ]


def domain_with(machine: str, *roles: str) -> dict[str, Any]:
    return {"trust_level": "semi-trusted", "machines": {machine: {"roles": list(roles)}}}


NAT = {
    "type": "proxy",
    "nat": "true",
    "connect": "tcp:10.110.0.1:8000",
    "listen": "tcp:192.0.2.1:1",
}


@pytest.mark.parametrize(
    ("keys", "settings", "said"),
    [
        (
            {"default": "hom"},
            {},
            '"hom" is not a domain that may get the AI access. Did you mean "hom',
        ),
        ({"default": "ai"}, {}, "ai_access_default: "),
        ({"default": ""}, {}, "global.ai_access_default: is missing: with global.ai_access excl"),
        ({}, {"aiAccess": "wrk"}, 'stt:aiAccess: "wrk" is not a domain that may get the AI acc'),
        ({}, {"aiAccess": "ai"}, "Allowed, by the rules of policy: home, work; or nobody."),
        ({"access": "open"}, {}, 'ai_access_default: is "home", and has no effect: global.ai_a'),
        ({"access": "exclusiv"}, {}, "global.ai_access"),
        ({"server": {"devices": {"lan": NAT}}}, {}, "gpu-server.devices.lan: has nat: true"),
        (
            {"home": domain_with("tablet", "base_system", "open_webui")},
            {"webui": {"stt_url": "http://10.110.0.1:8000/v1"}},
            "stt:webui.stt_url: is the address of ai/gpu-server, and global.ai_access is exclusive",
        ),
    ],
)
def test_what_cannot_be_is_refused(
    tmp_path: Path, keys: dict[str, Any], settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(pulumi.RunError) as refused:
        run("cpu", infra=topology(tmp_path, **keys), **settings)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (
            [{"from": "work", "to": "ai/webui", "ports": [3000]}],
            "global.ai_access: is exclusive, and no rule of policy lets a domain reach a machine",
        ),
        (
            [HOME, {"from": "10.0.0.0/8", "to": "ai/gpu-server", "ports": [8000]}],
            'policy.1.from: "10.0.0.0/8" includes the domains ai, home, work, and',
        ),
    ],
)
def test_rules_that_cannot_be_held_are_refused(
    tmp_path: Path, policy: list[dict[str, Any]], said: str
) -> None:
    with pytest.raises(pulumi.RunError) as refused:
        run("cpu", infra=topology(tmp_path, *policy))
    assert said in str(refused.value)


def test_a_domain_s_name_is_not_the_word_for_none(tmp_path: Path) -> None:
    nobody = {"trust_level": "trusted", "machines": {}}
    rule = {"from": "nobody", "to": "ai/gpu-server", "ports": [8000]}
    with pytest.raises(pulumi.RunError, match=r"domains.nobody: is the value of stt:aiAccess"):
        run("cpu", infra=topology(tmp_path, HOME, rule, nobody=nobody))


def test_a_review_says_what_a_turn_does() -> None:
    assert effects.HAND_OVER == HAND_OVER

    def said(name: str, op: Op, kind: str = "") -> tuple[effects.Weight, str]:
        return effects.effect(Change(name, op, kind), ["speaches"])

    weight, text = said(HAND_OVER, Op.UPDATE)
    assert weight is effects.Weight.IN_PLACE and "the models are unloaded" in text
    assert said(HAND_OVER, Op.DELETE)[0] is effects.Weight.NOTHING
    assert "shut out" in said(ACL, Op.UPDATE, "acl")[1]
    assert "is let in, at the end" in said(OPENED, Op.UPDATE)[1]
