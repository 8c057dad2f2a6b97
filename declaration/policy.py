"""``policy:`` of infra.yml: what may cross the border of a domain. Pure.

Nothing else crosses it but what the roles need (``stack.flows``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

from declaration.problems import Problem, show, suggest

if TYPE_CHECKING:
    from declaration.infra import Infra, Rule
    from declaration.topology import DomainPlan


@dataclass(frozen=True)
class Flow:
    """What may open a connection where to; ``why`` is what a reviewer reads.

    ``sources`` and ``destinations`` are networks, or ranges; ``names`` are how the two ends are
    shown. Without ``ports`` it is every protocol and port. ``held`` says why it is not let through
    now, where it is not.
    """

    names: tuple[str, str]
    sources: tuple[str, ...]
    destinations: tuple[str, ...]
    why: str
    protocol: str = ""
    ports: tuple[int, ...] = ()
    held: str = ""

    def __str__(self) -> str:
        ports = ", ".join(map(str, self.ports))
        what = f": {self.protocol} {ports}" if ports else ""
        held = f" (held: {self.held})" if self.held else ""
        return f"{self.names[0]} -> {self.names[1]}{what}{held}"


class End(NamedTuple):
    """One end of a rule: how it is shown, its addresses, and its member as far as the file says."""

    name: str
    networks: Sequence[IPv4Network]
    member: str = ""


def within(ends: Sequence[str], domain: DomainPlan) -> bool:
    """Whether ends are machines of a domain; a wider network is none, and neither is the host."""
    networks = [IPv4Network(end) for end in ends if "-" not in end]
    return any(each.subnet_of(domain.subnet) and each[0] != domain.gateway for each in networks)


def policy_flows(
    infra: Infra, domains: Sequence[DomainPlan], shown: str, problems: list[Problem]
) -> tuple[Flow, ...]:
    """The flows of ``policy:``; what is wrong with it goes to ``problems``."""
    ends = _ends(domains)
    flows: list[Flow] = []
    for index, rule in enumerate(infra.policy):
        place = f"{shown}: policy.{index}"
        found = [
            _end(name, ends, f"{place}.{key}", problems)
            for key, name in (("from", rule.from_), ("to", rule.to))
        ]
        source, destination = found
        if source is None or destination is None:
            continue
        if not {rule.from_, rule.to} & set(ends):
            problems.append(
                Problem(
                    place,
                    f"concerns no domain of this file. Name one at one end: {', '.join(ends)}.",
                )
            )
            continue
        pairs = list(product(source, destination))
        # A name is that of all parts: what leads from one member to another is not meant, unless
        # there is nothing else. Then it is refused (components.placement).
        pairs = [each for each in pairs if not _apart(*each)] or pairs
        flows += [_flow(rule, *each, index) for each in pairs]
    return tuple(flows)


def _apart(source: End, destination: End) -> bool:
    """Whether two ends are known to be on two members of a cluster."""
    return bool(source.member and destination.member) and source.member != destination.member


def _ends(domains: Sequence[DomainPlan]) -> dict[str, list[End]]:
    """What each name stands for: that of a domain on several members for each of its parts."""
    ends: dict[str, list[End]] = {}
    for domain in domains:
        member = "" if domain.member.startswith("@") else domain.member
        own = End(domain.written, [IPv4Network(domain.subnet)], member)
        for name in dict.fromkeys((domain.whole, domain.written)):
            ends.setdefault(name, []).append(own)
        machines: dict[str, list[IPv4Network]] = {}
        for machine in domain.machines:
            # All that `count` makes have one name as well.
            for name in dict.fromkeys((machine.name, machine.written)):
                machines.setdefault(name, []).append(IPv4Network(machine.address))
        for name, addresses in machines.items():
            end = End(f"{domain.written}/{name}", addresses, member)
            ends[f"{domain.whole}/{name}"] = ends[end.name] = [end]
    return ends


def _flow(rule: Rule, source: End, destination: End, index: int) -> Flow:
    why = f"policy.{index}" + (f": {rule.description}" if rule.description else "")
    ports = tuple(sorted(set(rule.ports)))
    ends = tuple(map(str, source.networks)), tuple(map(str, destination.networks))
    return Flow((source.name, destination.name), *ends, why, rule.protocol, ports)


def _end(
    name: str, ends: Mapping[str, list[End]], place: str, problems: list[Problem]
) -> list[End] | None:
    """A domain, a machine, an address or a network; None if it is none of these."""
    if name in ends:
        return ends[name]
    try:
        network = IPv4Network(name) if "/" in name else IPv4Network(IPv4Address(name))
        return [End(name, [network])]
    except ValueError:
        hint = suggest(name, list(ends))
        problems.append(
            Problem(
                place,
                f"{show(name)} is not there.{hint} Use a domain, DOMAIN/MACHINE, an IPv4 address, "
                f"or a network such as 192.168.1.0/24. In this file: {', '.join(ends)}.",
            )
        )
        return None
