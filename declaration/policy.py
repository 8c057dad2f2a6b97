"""``policy:`` of infra.yml: what may cross the border of a domain. Pure.

Nothing else crosses it but what the roles need (``stack.flows``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING

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


def within(ends: Sequence[str], domain: DomainPlan) -> bool:
    """Whether ends are machines of a domain; a wider network is none, and neither is the host."""
    networks = [IPv4Network(end) for end in ends if "-" not in end]
    return any(each.subnet_of(domain.subnet) and each[0] != domain.gateway for each in networks)


def policy_flows(
    infra: Infra, domains: Sequence[DomainPlan], shown: str, problems: list[Problem]
) -> tuple[Flow, ...]:
    """The flows of ``policy:``; what is wrong with it goes to ``problems``."""
    ends: dict[str, list[IPv4Network]] = {}
    for domain in domains:
        ends[domain.written] = [domain.subnet]
        for machine in domain.machines:
            # All that `count` makes have one name as well.
            for name in dict.fromkeys((machine.name, machine.written)):
                own = ends.setdefault(f"{domain.written}/{name}", [])
                own.append(IPv4Network(machine.address))
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
        flows.append(_flow(rule, source, destination, index))
    return tuple(flows)


def _flow(
    rule: Rule, source: Sequence[IPv4Network], destination: Sequence[IPv4Network], index: int
) -> Flow:
    why = f"policy.{index}" + (f": {rule.description}" if rule.description else "")
    ports = tuple(sorted(set(rule.ports)))
    ends = tuple(map(str, source)), tuple(map(str, destination))
    return Flow((rule.from_, rule.to), *ends, why, rule.protocol, ports)


def _end(
    name: str, ends: Mapping[str, list[IPv4Network]], place: str, problems: list[Problem]
) -> list[IPv4Network] | None:
    """A domain, a machine, an address or a network; None if it is none of these."""
    if name in ends:
        return ends[name]
    try:
        return [IPv4Network(name) if "/" in name else IPv4Network(IPv4Address(name))]
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
