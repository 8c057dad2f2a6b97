"""STT servers that are to be one service, and what keeps them from being one. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from declaration.problems import Problem
from declaration.settings import Settings
from declaration.topology import MachinePlan, Topology
from stack.checks import GATEWAY_ROLE, STT_ROLE
from stack.gateway import gateways_before
from stack.leads import leads_to
from stack.published import publishing


def replica_conflicts(topology: Topology) -> list[Problem]:
    """Several of one machine, with nothing that makes one service of them."""
    problems: list[Problem] = []
    for machine in topology.with_role(STT_ROLE):
        gateways = topology.with_role_in_parts(GATEWAY_ROLE, machine.domain)
        if machine.machine.count > 1 and not gateways:
            message = (
                f"makes {machine.machine.count} STT servers, and no machine of the domain has the "
                f"role {GATEWAY_ROLE}, which puts one address in front of them. Give it to one, or "
                "remove count."
            )
            problems.append(Problem(f"{machine.place}.count", message))
    return list(dict.fromkeys(problems))


def different_models(
    settings: Settings, topology: Topology, models: Sequence[tuple[MachinePlan, str]]
) -> list[Problem]:
    """Servers behind one gateway that would have different models; ``models`` has each one's.

    Behind it are those of its domain, and those of others that ``stt:gateway.servers`` names.
    """
    problems: list[Problem] = []
    there = publishing(topology)
    for gateway in topology.with_role(GATEWAY_ROLE):
        named = {leads_to(url, gateway, topology, there) for url in settings.gateway.servers}
        own: dict[str, MachinePlan] = {}
        for each, name in models:
            if each.domain == gateway.domain or (str(each.address), settings.port) in named:
                own.setdefault(name, each)
        if len(own) > 1:
            one_domain = len({each.domain for each in own.values()}) == 1
            listed = " and ".join(
                f"{name} (on {each.name if one_domain else each.full_name})"
                for name, each in own.items()
            )
            message = (
                f"is empty, and the servers behind the gateway on {gateway.name} would have "
                f"{listed}: an answer would depend on which of them is free. Name one model."
            )
            problems.append(Problem("stt:model", message))
    return problems


def separate_services(settings: Settings, topology: Topology) -> list[str]:
    """Domains with several STT services that no gateway makes one, for the operator to know."""
    found: list[str] = []
    domains = [each for each in topology.domains if not each.part_of]
    for domain in domains if settings.enabled else ():
        separate = [
            each.name
            for each in topology.with_role_in_parts(STT_ROLE, domain.name)
            if not gateways_before(settings, topology, each)
        ]
        if len(separate) > 1:
            listed = f"{', '.join(separate[:-1])} and {separate[-1]}"
            found.append(
                f"{domain.name}: {listed} are {len(separate)} STT services with an address each. "
                f"The role {GATEWAY_ROLE} on a machine of the domain makes them one service."
            )
    return found
