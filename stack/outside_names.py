"""Services that settings name by a name that the machines which ask them cannot look up. Pure.

Unless a domain's ``egress`` is ``open``, the name server of its bridge answers only for its own
machines (docs/security.md). Whoever gives a machine another way to names knows it, so this is said,
and not refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from declaration.problems import show
from declaration.settings import Settings
from declaration.topology import DomainPlan, Topology
from declaration.urls import is_loopback
from stack.asked import Asked, asked_services
from stack.leads import SUFFIX, is_name_of, named_machine
from stack.spans import leave_out


def outside_names(settings: Settings, topology: Topology) -> Iterator[str]:
    """Each, once for a setting and a domain that asks."""
    for asked in asked_services(settings, topology):
        if _is_address(asked.host):
            continue
        for domain in topology.domains:
            by = [each for each in asked.by if each.domain == domain.name]
            unknown = any(named_machine(asked.host, each, topology) is None for each in by)
            if unknown and domain.domain.egress != "open":
                yield _said(asked, domain, settings, topology)


def _said(asked: Asked, domain: DomainPlan, settings: Settings, topology: Topology) -> str:
    names = ", ".join(each.name for each in asked.by if each.domain == domain.name)
    others = [each for each in topology.machines if is_name_of(asked.host, each)]
    own = " or ".join(f"{each.address} ({each.full_name})" for each in others)
    bare = "." not in asked.host.removesuffix(SUFFIX)
    unless = " unless a container there has the name" if bare and not own else ""
    # Names of other domains are known nowhere, so egress does not help there.
    instead = f"Use its address, {own}."
    parts = [each.name for each in topology.parts_of(domain.name)]
    if any(each.domain in parts for each in others):
        instead = leave_out(asked.setting, names)
    elif not own:
        which = ", one that its certificate is for," if asked.url.startswith("https:") else ""
        place = f"{settings.infra}: {domain.place}.egress"
        instead = f'Use an IP address{which} or set egress to "open" ({place}).'
    return (
        f"{asked.setting}: {show(asked.url)} has a name, and {names} of the domain "
        f"{domain.written} cannot look it up{unless}: its egress is {show(domain.domain.egress)}, "
        f"so its DNS knows only its own machines. {instead}"
    )


def _is_address(host: str) -> bool:
    """Whether nothing has to be looked up."""
    try:
        ip_address(host)
    except ValueError:
        return is_loopback(host)
    return True
