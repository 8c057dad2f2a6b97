"""What may cross the border of a domain: what roles, settings and ``policy:`` make of the ACL."""

from __future__ import annotations

import shlex
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml

from components.state import STACK_ID
from declaration.internet import INTERNET
from tests.unit.program import KEPT, Program, run

AI = {"gpu-server": ["base_system", "stt_server"], "webui": ["base_system", "open_webui"]}
OFFICE = {"desk": ["base_system"]}


def program(
    tmp_path: Path, *policy: dict[str, Any], desk: Any = None, egress: str = "", **settings: Any
) -> Program:
    """Two domains; ``desk`` are keys of the second one's machine, ``egress`` is the first one's."""
    domains = {
        name: {
            "trust_level": level,
            "machines": {machine: {"roles": roles} for machine, roles in machines.items()},
        }
        for name, level, machines in (("ai", "trusted", AI), ("office", "untrusted", OFFICE))
    }
    domains["office"]["machines"]["desk"] |= desk or {}  # type: ignore[index]
    if egress:
        domains["ai"]["egress"] = egress
    file = tmp_path / "infra.yml"
    file.write_text(yaml.safe_dump({"policy": list(policy), "domains": domains}))
    return run("cpu", infra=str(file), **settings)


def rules(found: Program, domain: str, way: str, acl: str = "acl") -> list[str]:
    """An ACL's rules in words; the host's, the internet's and the services' own left out."""
    return [
        f"{rule['source']} -> {rule['destination']} {rule.get('protocol', '')}"
        f" {rule.get('destination_port', '')} ({rule['description']})"
        for rule in found.commands[f"{domain}/{acl}"].data[way]
        if rule["description"] not in ("the host", "the internet")
        and not rule["description"].startswith("services of")
    ]


def refusal(tmp_path: Path, *policy: dict[str, Any]) -> str:
    with pytest.raises(pulumi.RunError) as refused:
        program(tmp_path, *policy)
    return str(refused.value)


def test_without_policy_only_services_and_the_host_are_let_in(tmp_path: Path) -> None:
    found = program(tmp_path)
    ai, office = (found.commands[f"{name}/acl"].data for name in ("ai", "office"))
    assert [
        (r["source"], r["destination"], r.get("destination_port", "")) for r in ai["ingress"]
    ] == [
        ("10.110.0.254/32", "10.110.0.0/24", ""),
        ("10.110.0.0/24", "10.110.0.1/32", "8000"),
        ("10.110.0.0/24", "10.110.0.2/32", "3000"),
    ]
    assert [r["description"] for r in office["ingress"]] == ["the host"]
    assert office["egress"] == []
    network = found.commands["ai/network"].data["config"]
    assert network["security.acls"] == "net-ai"
    assert network["security.acls.default.ingress.action"] == "drop"
    assert network["security.acls.default.egress.action"] == "drop"


def test_a_rule_opens_both_borders(tmp_path: Path) -> None:
    rule = {"from": "office", "to": "ai/gpu-server", "ports": [8000, 80], "description": "desks"}
    found = program(tmp_path, rule)
    expected = ["10.130.0.0/24 -> 10.110.0.1/32 tcp 80,8000 (policy.0: desks)"]
    assert rules(found, "office", "egress") == rules(found, "ai", "ingress") == expected
    assert rules(found, "office", "ingress") == rules(found, "ai", "egress") == []
    assert "office -> ai/gpu-server: tcp 80, 8000" in found.outputs["allowed_traffic"]
    assert any(
        "policy.0: desks lets office (untrusted) reach ai/gpu-server (trusted)" in text
        for text in found.log
    )


def test_networks_outside_open_one_border(tmp_path: Path) -> None:
    found = program(
        tmp_path,
        {"from": "192.168.1.0/24", "to": "ai/webui", "ports": [3000]},
        {"from": "ai", "to": "192.168.1.5", "ports": [53], "protocol": "udp"},
        {"from": "10.0.0.0/8", "to": "ai/gpu-server", "ports": [1]},  # lets no domain out
    )
    assert rules(found, "ai", "ingress") == [
        "192.168.1.0/24 -> 10.110.0.2/32 tcp 3000 (policy.0)",
        "10.0.0.0/8 -> 10.110.0.1/32 tcp 1 (policy.2)",
    ]
    assert rules(found, "ai", "egress") == ["10.110.0.0/24 -> 192.168.1.5/32 udp 53 (policy.1)"]
    assert rules(found, "office", "egress") == []


def test_addresses_in_settings_are_reached(tmp_path: Path) -> None:
    found = program(
        tmp_path,
        webui={
            "stt_url": "http://10.130.0.1:9000/v1",
            "ollama_url": "http://10.9.9.9",
            "origins": ["http://10.8.8.8"],  # it comes from there
        },
        sources={"models": "https://192.168.1.5/hub", "vosk": "http://10.110.0.254:81"},
    )
    assert set(rules(found, "ai", "egress")) == {
        "10.110.0.0/24 -> 10.130.0.1/32 tcp 9000 (stt:webui.stt_url)",
        "10.110.0.0/24 -> 10.9.9.9/32 tcp 80 (stt:webui.ollama_url)",
    }
    assert set(rules(found, "ai", "egress", "acl/install")) == {
        "10.110.0.0/24 -> 192.168.1.5/32 tcp 443 (stt:sources.models)",
        "10.110.0.0/24 -> 10.110.0.254/32 tcp 81 (stt:sources.vosk)",
    }
    assert rules(found, "office", "ingress") == [
        "10.110.0.0/24 -> 10.130.0.1/32 tcp 9000 (stt:webui.stt_url)"
    ]


def test_what_open_webui_asks_is_reached_where_it_is_only(tmp_path: Path) -> None:
    file = tmp_path / "infra.yml"
    machines = {"box": {"roles": ["base_system", "stt_server"]}}
    file.write_text(
        yaml.safe_dump({"domains": {"ai": {"trust_level": "trusted", "machines": machines}}})
    )
    webui = {"stt_url": "http://10.9.9.9:9000/v1", "ollama_url": "http://10.9.9.9"}
    assert rules(run("cpu", infra=str(file), webui=webui), "ai", "egress") == []


@pytest.mark.parametrize("roles", [["base_system"], ["base_system", "ollama_server"]])
def test_the_registry_of_a_model_is_reached_where_ollama_is(
    tmp_path: Path, roles: list[str]
) -> None:
    models = [
        "192.168.1.6:5000/team/one:1b",
        "192.168.1.6:5000/team/two:1b",
        "192.168.1.7/team/three",
        "192.168.1.7:443/team/three",
        "team/four",
        "five:1b",
    ]
    found = program(tmp_path, desk={"roles": roles}, ollama={"models": models})
    reached = {
        "10.130.0.0/24 -> 192.168.1.6/32 tcp 5000 (stt:ollama.models)",
        "10.130.0.0/24 -> 192.168.1.7/32 tcp 443 (stt:ollama.models)",
    }
    expected = reached if "ollama_server" in roles else set()
    assert sorted(rules(found, "office", "egress", "acl/install")) == sorted(expected)
    for domain, acl in (("office", "acl"), ("ai", "acl"), ("ai", "acl/install")):
        assert rules(found, domain, "egress", acl) == []


BRIDGED = {"type": "nic", "nictype": "bridged", "parent": "br0"}
INSIDE = {"type": "proxy", "bind": "instance", "listen": "tcp:127.0.0.1:9999"}


def bypassing(tmp_path: Path, **devices: dict[str, str]) -> tuple[list[str], list[str]]:
    """What a closed domain shows of the internet and its devices, and what it is warned of."""
    profile = {"devices": {"extra": devices.pop("extra")}} if "extra" in devices else None
    profiles = ["default", *(["more"] if profile else [])]
    box = {"roles": ["base_system"], "devices": devices, "profiles": profiles}
    domain = {"trust_level": "trusted", "egress": "closed", "machines": {"box": box}}
    file = tmp_path / "infra.yml"
    more = {"profiles": {"more": profile}} if profile else {}
    file.write_text(yaml.safe_dump({"domains": {"ai": domain | more}}))
    found = run("cpu", infra=str(file))
    shown = [t for t in found.outputs["allowed_traffic"] if "internet" in t or "device" in t]
    return shown, [text for text in found.log if "bypasses the rules of ai" in text]


def test_devices_that_bypass_the_bridge_are_shown(tmp_path: Path) -> None:
    out = {**INSIDE, "connect": "tcp:203.0.113.5:443"}
    shown, warned = bypassing(tmp_path, eth1=BRIDGED, out=out)
    assert shown == [
        "ai/box -> whatever br0 reaches: everything (device eth1)",
        "ai/box -> 203.0.113.5: tcp 443 (device out)",
    ]
    [text] = warned
    assert text.startswith("ai/box: what passes through its device eth1 (br0) bypasses")


@pytest.mark.parametrize(
    ("device", "line", "warns", "nothing"),
    [
        ({"type": "nic", "network": "lan"}, "whatever lan reaches: everything", True, False),
        ({"type": "nic", "nictype": "p2p"}, "whatever the host reaches: everything", True, False),
        ({**INSIDE, "connect": "udp:10.0.0.1:53,60-70"}, "10.0.0.1: udp 53, 60-70", False, True),
        ({**INSIDE, "connect": "tcp:127.0.0.1:80"}, "the host at 127.0.0.1: tcp 80", False, True),
        ({**INSIDE, "connect": "tcp:[::1]:80"}, "the host at ::1: tcp 80", False, True),
        ({**INSIDE, "connect": "tcp:[2a00::1]:80"}, "2a00::1: tcp 80", False, False),
        ({**INSIDE, "connect": "tcp:example.org:80"}, "example.org: tcp 80", False, False),
        ({**INSIDE, "connect": "unix:/run/x"}, "the host: unix:/run/x", False, True),
        ({"type": "nic", "network": "net-ai"}, "", False, True),  # the bridge has the rules
        ({"type": "proxy", "listen": "tcp:0.0.0.0:1", "connect": "tcp:127.0.0.1:1"}, "", 0, True),
        ({"type": "none"}, "", False, True),
    ],
)
def test_what_a_device_leads_to(
    device: dict[str, str], line: str, warns: bool, nothing: bool, tmp_path: Path
) -> None:
    shown, warned = bypassing(tmp_path, extra=device)
    expected = [f"ai/box -> {line} (device extra)"] if line else []
    assert shown == expected + ["ai -> internet: nothing"] * nothing
    assert len(warned) == warns


def test_a_proxy_that_keeps_addresses_is_reached_from_anywhere(tmp_path: Path) -> None:
    proxy = {"type": "proxy", "listen": "tcp:192.0.2.1:80", "connect": "tcp:10.130.0.1:8080"}
    found = program(tmp_path, desk={"devices": {"site": {**proxy, "nat": "true"}}})
    expected = ["0.0.0.0/0 -> 10.130.0.1/32 tcp 8080 (device site)"]
    assert rules(found, "office", "ingress") == expected
    found = program(tmp_path, desk={"devices": {"site": proxy}})  # it connects within the machine
    assert rules(found, "office", "ingress") == []


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (
            {"from": "offce", "to": "ai", "ports": [1]},
            'policy.0.from: "offce" is not there. Did you mean "office"? Use a domain',
        ),
        ({"from": "ai", "to": "10.0.0.300", "ports": [1]}, '"10.0.0.300" is not there'),
        ({"from": "10.0.0.1/24", "to": "ai", "ports": [1]}, '"10.0.0.1/24" is not there'),
        (
            {"from": "10.1.0.0/16", "to": "10.2.0.0/16", "ports": [1]},
            "policy.0: concerns no domain of this file. Name one at one end: ai,",
        ),
        ({"from": "ai", "to": "office"}, "policy.0.ports"),
        ({"from": "ai", "to": "office", "ports": []}, "policy.0.ports"),
        ({"from": "ai", "to": "office", "ports": [0]}, "policy.0.ports.0"),
        ({"from": "ai", "to": "office", "port": [1]}, 'Did you mean "ports"?'),
    ],
)
def test_what_is_no_rule_is_refused(tmp_path: Path, rule: dict[str, Any], said: str) -> None:
    assert said in refusal(tmp_path, rule)


def test_the_internet_has_no_private_address() -> None:
    ranges = [tuple(map(ip_address, each.split("-"))) for each in INTERNET]

    def within(text: str) -> bool:
        address = IPv4Address(text)
        return any(first <= address <= last for first, last in ranges)  # type: ignore[operator]

    inside = ["10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1", "127.0.0.1"]
    inside += ["169.254.169.254", "100.64.0.1", "224.0.0.1", "239.1.1.1", "255.255.255.255"]
    outside = ["1.1.1.1", "9.9.9.9", "11.0.0.0", "172.15.255.255", "172.32.0.0", "192.167.0.1"]
    outside += ["192.169.0.0", "100.63.255.255", "126.0.0.1", "128.0.0.1", "223.255.255.255"]
    assert [each for each in inside if within(each)] == []
    assert [each for each in outside if not within(each)] == []


def internet(found: Program, acl: str) -> list[tuple[str, str]]:
    """Protocol and ports of an ACL's rules to the internet."""
    return [
        (rule.get("protocol", ""), rule.get("destination_port", ""))
        for rule in found.commands[acl].data["egress"]
        if rule["destination"] == ",".join(INTERNET)
    ]


def test_the_way_out_is_open_while_something_is_installed(tmp_path: Path) -> None:
    found = program(tmp_path)
    assert internet(found, "ai/acl") == []
    assert internet(found, "ai/acl/install") == [("tcp", "80,443")]
    assert found.commands["ai/acl/install"].data["ingress"] == []
    config = found.commands["ai/network"].data["config"]
    assert (config["security.acls"], config["raw.dnsmasq"]) == ("net-ai", "no-resolv")
    assert "ai -> internet: tcp 80, 443 (while up installs)" in found.outputs["allowed_traffic"]
    online = ".venv/bin/python -m host --connection local egress run "
    for name, command in found.commands.items():
        create = str(command.inputs["create"])
        if not name.startswith(("ai/", "office/")):
            assert not create.startswith(online), name
        elif name.endswith("/agent") or command.step_kind in ("packages", "program"):
            assert create.startswith(online), name
        elif command.step_kind not in ("model",):
            assert not create.startswith(online), name


def test_a_step_that_fetches_is_one_word_of_a_shell(tmp_path: Path) -> None:
    step = program(tmp_path).commands["ai/gpu-server/base_system/packages"]
    *_, bridge, command = shlex.split(step.inputs["create"])
    assert bridge == "net-ai"
    *_, option, stack = shlex.split(command)
    assert (option, stack) == ("--stack", KEPT[STACK_ID])
    assert step.inputs["interpreter"] == ["/bin/sh", "-c"]


@pytest.mark.parametrize("egress", ["closed", "install"])
def test_a_way_out_that_closes_waits_for_no_step(tmp_path: Path, egress: str) -> None:
    """The ACL itself loses the internet (test_acl_rules.py), and not only ``acl/closed``."""
    found = program(tmp_path, egress=egress).commands
    assert found["ai/acl"].dependencies == ["ai/project", STACK_ID]
    assert "--rules" not in found["ai/acl"].inputs["create"]
    assert set(found["ai/network"].dependencies) >= {"ai/acl"}
    steps = {name for name, each in found.items() if each.step_kind and name.startswith("ai/")}
    assert steps and steps <= set(found["ai/acl/closed"].dependencies)


@pytest.mark.parametrize(("egress", "passes"), [("open", [("", "")]), ("closed", [])])
def test_a_way_out_that_stays_as_it_is(tmp_path: Path, egress: str, passes: list[Any]) -> None:
    found = program(tmp_path, egress=egress, sources={"models": "https://192.168.1.5/hub"})
    assert internet(found, "ai/acl") == passes
    assert "ai/acl/install" not in found.commands
    config = found.commands["ai/network"].data["config"]
    assert config.get("raw.dnsmasq") == {"open": None, "closed": "no-resolv"}[egress]
    assert bool(rules(found, "ai", "egress")) == (egress == "open")  # the source
    assert not any(
        " egress run " in str(c.inputs["create"]) for n, c in found.commands.items() if "ai/" in n
    )
    shown = [text for text in found.outputs["allowed_traffic"] if text.startswith("ai -> internet")]
    assert shown == ["ai -> internet" if egress == "open" else "ai -> internet: nothing"]
