"""Which firewalls let a bridge's traffic through."""

from __future__ import annotations

from typing import Any

import pytest

from doctor.firewall import all_blocks, iptables_blocks

BRIDGE = "net-ai-tools"
#: What Docker sets, as `iptables -S` shows it.
DOCKER = """\
-P INPUT ACCEPT
-P FORWARD DROP
-P OUTPUT ACCEPT
-N DOCKER
-N DOCKER-FORWARD
-N DOCKER-USER
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-FORWARD
-A DOCKER ! -i docker0 -o docker0 -j DROP
-A DOCKER-FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-FORWARD -i docker0 -j ACCEPT
"""
OUT = f"-A DOCKER-USER -i {BRIDGE} -j ACCEPT"
BACK = f"-A DOCKER-USER -o {BRIDGE} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"


@pytest.mark.parametrize(
    ("rules", "passes"),
    [
        ([OUT, BACK], True),
        ([], False),
        ([OUT], False),
        ([BACK], False),
        ([OUT, f"-A DOCKER-USER -o {BRIDGE} -j ACCEPT"], True),
        ([OUT.replace(BRIDGE, "net-+"), BACK.replace(BRIDGE, "net+")], True),
        ([OUT.replace(BRIDGE, "net-other"), BACK], False),
        ([OUT.replace("-i", "! -i"), BACK], False),
        ([OUT.replace("DOCKER-USER", "INPUT"), BACK], False),  # not on the way
        (["-A FORWARD -j ACCEPT"], True),
        ([OUT.replace("-j", "-p tcp -m tcp --dport 443 -j"), BACK], False),
        ([OUT.replace("-j", '-m comment --comment "the domain" -j'), BACK], True),
        ([OUT, "-A FORWARD -m state --state RELATED,ESTABLISHED -j ACCEPT"], True),
    ],
)
def test_iptables(rules: list[str], passes: bool) -> None:
    said = DOCKER + "\n".join(rules)
    assert iptables_blocks(said, BRIDGE) == ([] if passes else ["FORWARD"])
    assert iptables_blocks(said.replace("FORWARD DROP", "FORWARD ACCEPT"), BRIDGE) == []


def _chain(**more: Any) -> dict[str, Any]:
    chain = {"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward"}
    return {"chain": {**chain, "policy": "drop", **more}}


def _rule(*expressions: dict[str, Any], chain: str = "FORWARD", **more: str) -> dict[str, Any]:
    rule = {"family": "ip", "table": "filter", "chain": chain, "expr": list(expressions)}
    return {"rule": {**rule, **more}}


def _match(key: str, value: Any, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": {"meta": {"key": key}}, "right": value}}


ACCEPT: dict[str, Any] = {"accept": None}
STATE = {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established"]}}
NFT_OUT, NFT_BACK = _rule(_match("iifname", BRIDGE), ACCEPT), _rule(STATE, ACCEPT)
JUMP = _rule({"jump": {"target": "DOCKER-USER"}})


@pytest.mark.parametrize(
    ("objects", "passes"),
    [
        ([_chain()], False),
        ([_chain(policy="accept")], True),
        ([_chain(hook="input")], True),
        ([_chain(family="ip6")], True),
        ([_chain(), NFT_OUT, NFT_BACK], True),
        ([_chain(), NFT_OUT], False),
        ([_chain(), NFT_BACK], False),
        ([_chain(), _rule(ACCEPT)], True),
        ([_chain(), _rule(_match("iifname", BRIDGE, "!="), ACCEPT), NFT_BACK], False),
        ([_chain(), _rule(_match("oifname", BRIDGE), ACCEPT), NFT_OUT], True),
        ([_chain(), _rule(_match("l4proto", "tcp"), ACCEPT), NFT_BACK], False),
        ([_chain(), _rule(_match("iifname", BRIDGE), {"drop": None}), NFT_BACK], False),
        # Incus accepts in a table of its own, which opens no other one.
        ([_chain(), {"rule": {**NFT_OUT["rule"], "table": "incus"}}, NFT_BACK], False),
        ([_chain(), JUMP, {"rule": {**NFT_OUT["rule"], "chain": "DOCKER-USER"}}, NFT_BACK], True),
        ([_chain(), {"rule": {**NFT_OUT["rule"], "chain": "DOCKER-USER"}}, NFT_BACK], False),
    ],
)
def test_nft(objects: list[dict[str, Any]], passes: bool) -> None:
    ruleset = {"nftables": [{"metainfo": {"version": "1.0"}}, *objects]}
    assert all_blocks(ruleset, "", BRIDGE) == ([] if passes else ["ip filter FORWARD"])


def test_a_host_without_nft_is_told_by_iptables() -> None:
    assert all_blocks(None, DOCKER, BRIDGE) == ["FORWARD"]
    assert all_blocks(None, "", BRIDGE) == []
