"""Whether a firewall lets a bridge's traffic through. Pure.

Docker sets the policy of FORWARD to DROP, and accepts its own bridges only. Each table decides for
itself: what Incus' own table accepts, another one may still drop.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Another interface than the one that a rule names.
_ANOTHER = "!"
#: What a rule of iptables may have beside its target without being about some traffic only.
_BESIDE = re.compile(
    r' (! )?-[io] \S+| -m (conntrack|state|comment)| --(ctstate|state) \S+| --comment ("[^"]*"|\S+)'
)


@dataclass(frozen=True)
class Rule:
    """A rule of ``chain``: it jumps to the chain ``jump``, or it accepts, or neither matters here.

    It accepts what comes ``iif`` and goes ``oif`` (names of interfaces; empty: any), or of that
    only ``answers`` to what was let through before.
    """

    chain: str
    jump: str = ""
    accepts: bool = False
    iif: str = ""
    oif: str = ""
    answers: bool = False


def nft_blocks(ruleset: Any, bridge: str) -> list[str]:
    """The chains that drop what a bridge forwards, by ``nft --json list ruleset``."""
    objects = ruleset.get("nftables", []) if isinstance(ruleset, Mapping) else []
    every = [each["rule"] for each in objects if "rule" in each]
    found: list[str] = []
    for chain in (each["chain"] for each in objects if "chain" in each):
        ipv4 = chain.get("family") in ("ip", "inet")
        if not ipv4 or chain.get("hook") != "forward" or chain.get("policy") != "drop":
            continue
        table = (chain["family"], chain["table"])
        rules = [_nft_rule(each) for each in every if (each["family"], each["table"]) == table]
        if not _passes(rules, chain["name"], bridge):
            found.append(f"{chain['family']} {chain['table']} {chain['name']}")
    return found


def iptables_blocks(said: str, bridge: str) -> list[str]:
    """The same by ``iptables -S``, for the older tables that nft does not show."""
    lines = said.splitlines()
    if "-P FORWARD DROP" not in lines:
        return []
    rules = [_iptables_rule(line) for line in lines if line.startswith("-A ")]
    return [] if _passes(rules, "FORWARD", bridge) else ["FORWARD"]


def _passes(rules: Sequence[Rule], first: str, bridge: str) -> bool:
    """Whether a chain accepts both what goes out of the bridge and its answers."""
    chains, more = set[str](), {first}
    while more:
        chains |= more
        more = {rule.jump for rule in rules if rule.chain in chains and rule.jump} - chains
    accepting = [rule for rule in rules if rule.chain in chains and rule.accepts]
    out = any(_is(rule.iif, bridge) and not rule.oif and not rule.answers for rule in accepting)
    back = any(_is(rule.oif, bridge) and not rule.iif for rule in accepting)
    return out and back


def _is(pattern: str, bridge: str) -> bool:
    """Whether an interface of a rule is the bridge: ``+`` and ``*`` at the end are any letters."""
    if pattern[-1:] in ("+", "*"):
        return bridge.startswith(pattern[:-1])
    return pattern in ("", bridge)


def _nft_rule(rule: Mapping[str, Any]) -> Rule:
    expressions: Sequence[Mapping[str, Any]] = rule.get("expr", [])
    chain = str(rule["chain"])
    for verdict in ("jump", "goto"):
        if target := next((each[verdict]["target"] for each in expressions if verdict in each), ""):
            return Rule(chain, jump=str(target))
    if not any("accept" in each for each in expressions):
        return Rule(chain)
    found = {"iifname": "", "oifname": ""}
    answers = False
    for match in (each["match"] for each in expressions if "match" in each):
        left, right = match.get("left"), match.get("right")
        key = left.get("meta", {}).get("key") if isinstance(left, Mapping) else None
        if key in found and isinstance(right, str):
            found[key] = right if match.get("op") == "==" else _ANOTHER
        elif "established" in json.dumps(match):
            answers = True
        else:  # it accepts some addresses or ports only
            return Rule(chain)
    return Rule(chain, "", True, found["iifname"], found["oifname"], answers)


def _iptables_rule(line: str) -> Rule:
    chain, _, rest = line.removeprefix("-A ").partition(" ")
    rest, _, target = f" {rest}".rpartition(" -j ")
    if target.split(" ")[0] != "ACCEPT":
        return Rule(chain, jump=target.split(" ")[0])
    found = {"-i": "", "-o": ""}
    for inverse, option, name in re.findall(r" (! )?(-i|-o) (\S+)", rest):
        found[option] = _ANOTHER if inverse else name
    answers = "ESTABLISHED" in rest
    rest = _BESIDE.sub("", rest)
    if rest.strip():  # it accepts some addresses or ports only
        return Rule(chain)
    return Rule(chain, "", True, found["-i"], found["-o"], answers)


def all_blocks(nft: Any, iptables: str, bridge: str) -> list[str]:
    """What drops a bridge's traffic; today's iptables is a front end to nftables, and in both."""
    return nft_blocks(nft, bridge) or iptables_blocks(iptables, bridge)
