"""Which rules of an ACL lead to the internet. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from declaration.internet import INTERNET, is_on_internet

Rule = Mapping[str, Any]


def opens_internet(rules: Sequence[Rule]) -> bool:
    """Whether one of them is this program's own rule for the whole internet."""
    return any(rule.get("destination") == ",".join(INTERNET) for rule in rules)


def loses_internet(before: Sequence[Rule], after: Sequence[Rule]) -> bool:
    """Whether some of the internet is reached by the rules before, and by none of those after."""
    return not opens_internet(after) and not _outside(before) <= _outside(after)


def _outside(rules: Sequence[Rule]) -> set[str]:
    """The destinations of rules that have addresses of the internet."""
    allowed = [rule for rule in rules if str(rule.get("action", "")).startswith("allow")]
    return {
        destination
        for rule in allowed
        for destination in str(rule.get("destination", "")).split(",")
        if _has_internet(destination)
    }


def _has_internet(destination: str) -> bool:
    """Whether some of it is on the internet: nothing is everything, and a name may be anywhere."""
    try:
        return is_on_internet(*_ends(destination))
    except ValueError:
        return True


def _ends(destination: str) -> tuple[IPv4Address, IPv4Address]:
    first, dash, last = destination.partition("-")
    if dash:
        return IPv4Address(first), IPv4Address(last)
    network = IPv4Network(destination, strict=False)
    return network[0], network[-1]
