"""``count``: machines that are alike, and STT servers that are one service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from declaration.infra import load_infra
from declaration.problems import DeclarationError
from declaration.topology import Topology, plan_topology
from roles import ROLES
from stack.declare import Declaration, declare
from tests.sizes import as_two_domains, without_cards
from tests.unit.program import host_after, run
from tests.unit.values import DEFAULTS

STT = ["base_system", "stt_server"]
GATEWAY = {"roles": ["base_system", "stt_gateway"]}
CARD = {"card": {"devices": {"gpu": {"type": "gpu", "gputype": "physical"}}}}


def written(tmp_path: Path, machines: dict[str, Any], **keys: Any) -> str:
    """A topology of one domain ``lab``; its path."""
    domain = {"trust_level": "semi-trusted", "profiles": CARD, "machines": machines}
    file = tmp_path / "infra.yml"
    file.write_text(yaml.safe_dump({"domains": {"lab": domain}, **keys}, sort_keys=False))
    return str(file)


def plan(tmp_path: Path, machines: dict[str, Any], **keys: Any) -> Topology:
    file = Path(written(tmp_path, machines, **keys))
    return plan_topology(load_infra(file, "infra.yml"), ROLES)


def declared(tmp_path: Path, machines: dict[str, Any], **values: Any) -> Declaration:
    infra = written(tmp_path, machines)
    return declare({**DEFAULTS, "infra": infra, **values}, ROLES, Path("/"))


def problems(call: Any, *words: Any, **values: Any) -> list[str]:
    with pytest.raises(DeclarationError) as caught:
        call(*words, **values)
    return [str(problem) for problem in caught.value.problems]


def test_the_first_keeps_the_name_and_the_others_are_numbered(tmp_path: Path) -> None:
    """A second server beside one that runs is one more machine, and changes nothing else."""
    machines = {"stt": {"count": 3, "roles": STT, "description": "Speech"}, "web": {}}
    found = {each.name: each for each in plan(tmp_path, machines).machines}
    assert {name: str(each.address) for name, each in found.items()} == {
        "stt": "10.120.0.1",
        "stt-2": "10.120.0.99",
        "stt-3": "10.120.0.98",
        "web": "10.120.0.2",
    }
    more = {**machines, "stt": {**machines["stt"], "count": 4}, "later": {}}
    later = {each.name: each.address for each in plan(tmp_path, more).machines}
    assert {name: later[name] for name in found} == {n: m.address for n, m in found.items()}
    assert all(found[name].roles == STT for name in ("stt", "stt-2", "stt-3"))
    assert found["stt-3"].machine.description == "Speech"


def test_an_address_is_the_first_one_s(tmp_path: Path) -> None:
    machines = {"a": {}, "stt": {"count": 2, "ip": "10.120.0.98"}, "b": {}}
    found = {each.name: str(each.address) for each in plan(tmp_path, machines).machines}
    assert found == {
        "a": "10.120.0.1",
        "stt": "10.120.0.98",
        "stt-2": "10.120.0.99",
        "b": "10.120.0.2",
    }


def test_a_new_name_is_one_for_all(tmp_path: Path) -> None:
    topology = plan(tmp_path, {"stt": {"count": 2, "formerly": "speech"}})
    assert topology.former_name("lab/stt/agent") == "lab/speech/agent"
    assert topology.former_name("lab/stt-2/agent") == "lab/speech-2/agent"


def test_a_rule_is_about_all_of_them_or_one(tmp_path: Path) -> None:
    policy = [
        {"from": "192.168.1.0/24", "to": f"lab/{name}", "ports": [8000]}
        for name in ("stt", "stt-2")
    ]
    both, second = plan(tmp_path, {"stt": {"count": 2}}, policy=policy).policy
    assert both.destinations == ("10.120.0.1/32", "10.120.0.99/32")
    assert second.destinations == ("10.120.0.99/32",)


@pytest.mark.parametrize(
    ("machines", "said"),
    [
        (
            {"stt": {"count": 0}},
            "stt.count: 0 is not allowed: Input should be greater than or equal to 1",
        ),
        (
            {"stt": {"count": 100}},
            "stt.count: 100 is not allowed: Input should be less than or equal to 99",
        ),
        ({"stt": {"count": "2"}}, 'stt.count: "2" is not allowed: Input should be a valid integer'),
        (
            {"stt": {"count": 99}, "web": {}},
            "stt: finds no free address: a domain has room for 99 machines",
        ),
        (
            {"stt": {"count": 2, "ip": "10.120.0.99"}},
            "stt.ip: 10.120.0.100 (stt-2) is not allowed. Use one of 10.120.0.1 to 10.120.0.99",
        ),
        (
            {"stt": {"count": 2}, "stt-2": {}},
            "stt-2: makes a machine stt-2, and so does stt. Give one of them another name",
        ),
        (
            {"s" * 62: {"count": 2}},
            f"{'s' * 62}.count: makes a machine {'s' * 62}-2, and a name has at most 63 characters",
        ),
    ],
    ids=["none", "too many", "text", "no address", "address of DHCP", "name twice", "long name"],
)
def test_what_cannot_be_is_said(tmp_path: Path, machines: dict[str, Any], said: str) -> None:
    found = problems(plan, tmp_path, machines)
    assert [each.removeprefix("infra.yml: domains.lab.machines.") for each in found] == [f"{said}."]


def test_several_on_one_card_need_it_shared(tmp_path: Path) -> None:
    machines = {"stt": {"count": 2, "gpu": True, "profiles": ["default", "card"]}}
    [said] = problems(plan, tmp_path, machines)
    assert "is exclusive, but 2 machines may get the same card: lab/stt, lab/stt-2" in said


def test_what_is_wrong_with_all_of_them_is_said_once(tmp_path: Path) -> None:
    machines = {"stt": {"count": 3, "gpu": True}}
    found = problems(plan, tmp_path, machines, **{"global": {"gpu_policy": "shared"}})
    assert len(found) == 1


def test_servers_without_a_gateway_are_refused(tmp_path: Path) -> None:
    [said] = problems(declared, tmp_path, {"stt": {"count": 2, "roles": STT}})
    assert said == (
        "domains.lab.machines.stt.count: makes 2 STT servers, and no machine of the domain has the "
        "role stt_gateway, which puts one address in front of them. Give it to one, or remove "
        "count."
    )


def test_servers_without_a_gateway_are_said_to_be_several_services(tmp_path: Path) -> None:
    """It is allowed: one may be the faster. The preview tells, in one line."""
    machines: dict[str, Any] = {"stt": {"roles": STT}, "more": {"roles": STT}}

    def said(domain: dict[str, Any], **settings: Any) -> list[str]:
        log = run("cpu", infra=written(tmp_path, domain), **settings).log
        return [line for line in log if "with an address each" in line]

    assert said(machines) == [
        "lab: stt and more are 2 STT services with an address each. The role stt_gateway on a "
        "machine of the domain makes them one service."
    ]
    [three] = said({**machines, "last": {"roles": STT}})
    assert three.startswith("lab: stt, more and last are 3 STT services")
    assert said({**machines, "gateway": GATEWAY}) == []
    assert said({"stt": {"roles": STT}}) == []
    assert said(machines, enabled=False) == []


def test_servers_of_one_gateway_have_one_model(tmp_path: Path) -> None:
    machines = {
        "fast": {"roles": STT, "gpu": True, "profiles": ["default", "card"]},
        "slow": {"roles": STT},
        "gateway": GATEWAY,
    }
    [said] = problems(declared, tmp_path, machines)
    assert said.startswith("stt:model: is empty, and the servers behind the gateway on gateway ")
    assert "large-v3-turbo (on fast) and small (on slow)" in said
    models = {each.model.name for each in declared(tmp_path, machines, model="small").services}
    assert models == {"small"}


def test_servers_of_another_domain_have_the_gateway_s_model_too(tmp_path: Path) -> None:
    """The cluster of docs/scale.md in two domains, where the second member has no card."""
    cluster, servers = as_two_domains()
    more = cluster["domains"]["ai-more"]["machines"]
    more["stt"] = without_cards(more["stt"])
    file = tmp_path / "infra.yml"
    file.write_text(yaml.safe_dump(cluster, sort_keys=False))
    values = {**DEFAULTS, "infra": str(file)}
    behind = {"gateway": {"servers": servers}}
    [said] = problems(declare, {**values, **behind}, ROLES, Path("/"))
    assert said.startswith("stt:model: is empty, and the servers behind the gateway on gateway ")
    assert "large-v3-turbo (on ai-tools/stt) and small (on ai-more/stt)" in said
    assert declare({**values, **behind, "model": "small"}, ROLES, Path("/"))
    assert declare(values, ROLES, Path("/")), "the gateway does not ask the second one"


def test_servers_of_a_gateway_change_one_by_one(tmp_path: Path) -> None:
    machines = {"stt": {"count": 3, "roles": STT}, "gateway": GATEWAY}
    infra = written(tmp_path, machines)
    commands = run("cpu", infra=infra).commands

    def waits_for(name: str) -> list[str]:
        return commands[name].dependencies

    assert "lab/stt/stt_server/verify" in waits_for("lab/stt-2/stt_server/service")
    assert "lab/stt-2/stt_server/verify" in waits_for("lab/stt-3/stt_server/service")
    assert not any("verify" in each for each in waits_for("lab/stt/stt_server/service"))


def test_a_replaced_model_goes_when_the_last_server_has_the_new_one(tmp_path: Path) -> None:
    machines = {"stt": {"count": 2, "roles": STT}, "gateway": GATEWAY}
    infra = written(tmp_path, machines)
    commands = run("cpu", infra=infra, keepModels=False).commands
    first = commands["lab/stt/stt_server/prune"]
    verified = {f"lab/{name}/stt_server/verify" for name in ("stt", "stt-2")}
    assert verified <= set(first.dependencies)


def test_a_model_that_only_another_server_has_is_kept(tmp_path: Path) -> None:
    """They share the volume."""
    machines = {
        "fast": {"roles": STT, "gpu": True, "profiles": ["default", "card"]},
        "slow": {"roles": STT},
    }
    infra = written(tmp_path, machines)
    commands = run("gpu", infra=infra, keepModels=False).commands
    kept = [commands[f"lab/{name}/stt_server/prune"].spec["keep"] for name in ("fast", "slow")]
    assert sorted(kept[0]) == sorted(kept[1])
    assert len(kept[0]) == 2


def test_the_shipped_stack_pool_is_two_servers_and_a_gateway() -> None:
    """Its two files as they are: ``test_settings.py`` compares the copies."""
    program = run("pool")
    services = {n.split("/")[1] for n in program.commands if n.endswith("/stt_server/service")}
    assert services == {"stt", "stt-2"}
    assert "ai-tools-pool/gateway/stt_gateway/service" in program.commands
    addresses = {
        name: program.commands[f"ai-tools-pool/{name}/instance"].data["devices"]["eth0"][
            "ipv4.address"
        ]
        for name in ("stt", "stt-2", "gateway")
    }
    assert program.outputs["gateway_servers"] == {
        name: f"http://{addresses[name]}:8000" for name in ("stt", "stt-2")
    }
    assert program.outputs["stt_url"] == f"http://{addresses['gateway']}:8000/v1"
    assert program.outputs["stt_url"] != program.outputs["machines"]["ai-tools-pool/stt"]["stt_url"]
    second = run("pool", host_after(program), program)
    assert not second.changes(program) and not second.drift
