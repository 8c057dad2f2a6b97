"""Domains over several members of an Incus cluster: their parts. Pure.

A bridge of Incus does not reach from one member to another. So the machines of a domain that are
on another member than the domain become a part of it: planned as a domain of its own, with a
project, a bridge and a subnet, and called by its domain and the place of its member in
``global.members``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network

from declaration.environment import Environment
from declaration.infra import INTERFACE_NAME_MAX, SUBNETS, TRUST_LEVELS, Domain, Infra, Machine
from declaration.problems import Problem, show, suggest

#: Subnets that the parts of a domain have of their own.
PARTS = 8


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
        if part in infra.domains:
            continue
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
    parts: Sequence[Part],
    environment: Environment,
    shown: str,
    problems: list[Problem],
) -> dict[str, IPv4Network]:
    """The subnet of every domain and part, by its name; what is wrong goes to ``problems``.

    Domains get the first ones of their zone that are free, in the file's order. A part has one of
    its own, whatever other parts there are (``_own_third``); the last one that is free, where that
    is taken or there is none.
    """
    used = {each.domain.subnet for each in parts if each.domain.subnet}
    found: dict[str, IPv4Network] = {}

    def left(those: Iterable[Part], thirds: Callable[[Part], Iterable[int]]) -> list[Part]:
        """Those that get none of their third numbers."""
        without: list[Part] = []
        for each in those:
            every = _subnets(infra, each.domain.trust_level, thirds(each))
            free = (one for one in every if not any(one.overlaps(other) for other in used))
            subnet = each.domain.subnet or next(free, None)
            if subnet is None:
                without.append(each)
            else:
                used.add(subnet)
                found[each.written] = subnet
        return without

    third = environment.subnets
    last = [*reversed(third[:SUBNETS]), *reversed(third[SUBNETS:])]
    without = left([each for each in parts if not each.number], lambda _: third)
    others = left(
        [each for each in parts if each.number], lambda each: _own_third(infra, each, third)
    )
    without += left(others, lambda _: last)
    problems += [_no_subnet(infra, each, shown) for each in without]
    return found


def _own_third(infra: Infra, part: Part, third: Sequence[int]) -> list[int]:
    """The third number that is a part's own, if there is one.

    It follows from the part's number and the place of its domain among those of its trust level:
    each has 8, from the end of the first 32 down. These are there with environments and without.
    """
    level = part.domain.trust_level
    place = [name for name, each in infra.domains.items() if each.trust_level == level].index(
        part.of
    )
    below = part.number + place * PARTS
    return [third[SUBNETS - below]] if part.number <= PARTS and below <= SUBNETS else []


def _subnets(infra: Infra, level: str, thirds: Iterable[int]) -> Iterator[IPv4Network]:
    """The subnets of a trust level with these third numbers."""
    zone = _zone(infra, level)
    if zone <= 255:
        for third in thirds:
            yield IPv4Network(f"{infra.global_.addressing.base_octet}.{zone}.{third}.0/24")


def _zone(infra: Infra, level: str) -> int:
    """The second number of a trust level's subnets."""
    addressing = infra.global_.addressing
    return addressing.zone_base + TRUST_LEVELS.index(level) * addressing.zone_step


def _no_subnet(infra: Infra, part: Part, shown: str) -> Problem:
    """Nothing is left for a domain, or a part, which cannot name one."""
    level, base = part.domain.trust_level, infra.global_.addressing.base_octet
    who, instead = "", ", or give it a subnet"
    if part.number:  # no key names it
        who, instead = f" for its part {part.written}", ""
    message = (
        f"no subnet {base}.{_zone(infra, level)}.x.0/24{who} is free or exists for trust level "
        f"{level}. Lower global.addressing.zone_base or zone_step{instead}."
    )
    return Problem(f"{shown}: domains.{part.of}", message)
