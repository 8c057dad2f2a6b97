"""Domains over several members of an Incus cluster: their parts. Pure.

A bridge of Incus does not reach from one member to another. So the machines of a domain that are
on another member than the domain become a part of it: planned as a domain of its own, with a
project, a bridge and a subnet, and called by its domain and the place of its member in
``global.members``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network

from declaration.environment import Environment
from declaration.infra import INTERFACE_NAME_MAX, TRUST_LEVELS, Domain, Infra, Machine
from declaration.problems import Problem, show, suggest


@dataclass(frozen=True)
class Part:
    """A domain, or the part of one on another member.

    ``written`` is its name, and ``domain`` its content. ``of`` is the name of its domain in the
    file. ``number`` is the place of its member in ``global.members``, from 1; 0 if it is no part.
    """

    written: str
    domain: Domain
    of: str
    number: int = 0


def split(
    infra: Infra, environment: Environment, shown: str, problems: list[Problem]
) -> list[Part]:
    """Every domain in the file's order, each followed by its parts.

    ``shown`` is how messages call the file; what is wrong goes to ``problems``.
    """
    found: list[Part] = []
    for name, domain in infra.domains.items():
        away = {
            key: each
            for key, each in domain.machines.items()
            if domain.member and each.member not in (None, domain.member)
        }
        parts = _parts(name, away, infra, environment, shown, problems)
        here = {key: each for key, each in domain.machines.items() if key not in away}
        found.append(Part(name, domain.model_copy(update={"machines": here}), name))
        found += parts
    return found


def _parts(
    name: str,
    away: dict[str, Machine],
    infra: Infra,
    environment: Environment,
    shown: str,
    problems: list[Problem],
) -> list[Part]:
    """The parts of a domain, one for each member that machines of it name besides its own."""
    domain, place = infra.domains[name], f"{shown}: domains.{name}"
    wrong = _without_address(away, domain, infra, place)
    if wrong:
        problems += wrong
        return []
    found: list[Part] = []
    for number, member in enumerate(infra.global_.members, 1):
        machines = {key: each for key, each in away.items() if each.member == member}
        if not machines:
            continue
        part = f"{name}-{number}"
        problems += _bad_name(part, name, member, infra, environment, shown)
        update = {
            "member": member,
            "machines": machines,
            "subnet": None,
            "formerly": f"{domain.formerly}-{number}" if domain.formerly else None,
        }
        found.append(Part(part, domain.model_copy(update=update), name, number))
    return found


def _without_address(
    away: dict[str, Machine], domain: Domain, infra: Infra, place: str
) -> list[Problem]:
    """Members of a domain on several whose addresses are not known."""
    named = {f"{place}.machines.{key}.member": each.member or "" for key, each in away.items()}
    if away:
        named[f"{place}.member"] = domain.member or ""
    members = infra.global_.members
    problems: list[Problem] = []
    for where, member in named.items():
        if member.startswith("@"):
            message = (
                f"{show(member)} is a group, and machines of this domain are on several members, "
                "which reach each other at addresses: that of a group is not known. Name a member."
            )
            problems.append(Problem(where, message))
        elif member not in members:
            message = (
                f"{show(member)} has no address in global.members, and machines of this domain on "
                f"other members would ask there.{suggest(member, members)} Add it, as in "
                f"global.members: {{{member}: 192.168.1.11}}; incus cluster list shows its address."
            )
            problems.append(Problem(where, message))
    return problems


def _bad_name(
    part: str, name: str, member: str, infra: Infra, environment: Environment, shown: str
) -> list[Problem]:
    """A part whose name is taken, or too long for its bridge."""
    place = f"{shown}: domains.{name}"
    if part in infra.domains:
        message = (
            f"its machines on {member} are the part {part} of it, and there is a domain of that "
            "name. Give one of the two another name."
        )
        return [Problem(place, message)]
    bridge = environment.bridge(part)
    over = len(bridge) - INTERFACE_NAME_MAX
    if over <= 0:
        return []
    where = f" in the environment {environment.name}" if environment.number else ""
    message = (
        f"its machines on {member} are the part {part} of it, whose bridge {bridge}{where} would "
        f"have {len(bridge)} characters, and an interface name has at most {INTERFACE_NAME_MAX}. "
        f"Use a name of at most {len(name) - over} characters."
    )
    return [Problem(place, message)]


def choose_subnets(
    infra: Infra,
    parts: Iterable[Part],
    environment: Environment,
    shown: str,
    problems: list[Problem],
) -> dict[str, IPv4Network]:
    """The subnet of every domain and part, by its name; what is wrong goes to ``problems``.

    Domains get the first ones of their zone that are free, in the file's order. Parts get the last
    ones: another domain does not change them.
    """
    every = list(parts)
    used = {each.domain.subnet for each in every if each.domain.subnet}
    found: dict[str, IPv4Network] = {}
    for each in sorted(every, key=lambda each: each.number):
        domain, place = each.domain, f"{shown}: domains.{each.of}"
        subnet, third = domain.subnet, environment.subnets
        if subnet is None:
            order = reversed(third) if each.number else third
            subnet = _next_subnet(infra, domain.trust_level, order, used, place, problems)
        if subnet is not None:
            used.add(subnet)
            found[each.written] = subnet
    return found


def _next_subnet(
    infra: Infra,
    level: str,
    third: Iterable[int],
    used: set[IPv4Network],
    place: str,
    problems: list[Problem],
) -> IPv4Network | None:
    """The first subnet of the level's zone that none before has and none has pinned."""
    addressing = infra.global_.addressing
    zone = addressing.zone_base + TRUST_LEVELS.index(level) * addressing.zone_step
    if zone <= 255:
        for index in third:
            subnet = IPv4Network(f"{addressing.base_octet}.{zone}.{index}.0/24")
            if not any(subnet.overlaps(other) for other in used):
                return subnet
    problems.append(
        Problem(
            place,
            f"no subnet {addressing.base_octet}.{zone}.x.0/24 is free or exists for trust level "
            f"{level}. Lower global.addressing.zone_base or zone_step, or give it a subnet.",
        )
    )
    return None
