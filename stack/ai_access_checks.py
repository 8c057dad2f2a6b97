"""Exclusive AI access, checked: who may get it, and no way to the services beside it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network

from declaration.policy import Flow
from declaration.problems import Problem, show, suggest
from declaration.settings import Settings
from declaration.topology import Topology
from stack.ai_access import NOBODY, AiAccess, ai_access, ai_machines, reached_by, source_of
from stack.flows import named_flows, published


def ai_access_problems(settings: Settings, topology: Topology, file: str) -> list[Problem]:
    """What is wrong with ``global.ai_access`` and with what goes with it.

    ``file`` is how messages call the topology.
    """
    access = ai_access(settings, topology)
    if access:
        return [*_names(access, settings, file), *_beside(settings, topology, file)]
    if not topology.ai_access_default:
        return []
    message = (
        f"is {show(topology.ai_access_default)}, and has no effect: global.ai_access is open. "
        "Remove it, or set global.ai_access to exclusive."
    )
    return [Problem(f"{file}: global.ai_access_default", message)]


def _names(access: AiAccess, settings: Settings, file: str) -> Iterator[Problem]:
    """Nobody who may get the access, or somebody who may not."""
    candidates, default = access.candidates, access.topology.ai_access_default
    if not candidates:
        services = [m.full_name for each in access.topology.domains for m in ai_machines(each)]
        example = f"{{from: DOMAIN, to: {services[0] if services else 'DOMAIN'}, ports: [8000]}}"
        yield Problem(
            f"{file}: global.ai_access",
            "is exclusive, and no rule of policy lets a domain reach a machine with the role "
            f"stt_server or ollama_server of another one ({', '.join(services) or 'none has it'}). "
            f"Add one, such as {example}, or set it to open.",
        )
        return
    allowed = f"Allowed, by the rules of policy: {', '.join(candidates)}"
    place = f"{file}: global.ai_access_default"
    if NOBODY in candidates:
        message = f'is the value of stt:aiAccess for "no domain". Rename the domain {NOBODY}.'
        yield Problem(f"{file}: domains.{NOBODY}", message)
    if not default:
        message = f"is missing: with global.ai_access exclusive one domain has it first. {allowed}."
        yield Problem(place, message)
    elif default not in candidates:
        yield Problem(place, _no_candidate(default, candidates, f"{allowed}."))
    if settings.aiAccess not in ("", NOBODY, *candidates):
        words = f"{allowed}; or {NOBODY}."
        yield Problem("stt:aiAccess", _no_candidate(settings.aiAccess, candidates, words))


def _no_candidate(name: str, candidates: list[str], allowed: str) -> str:
    hint = suggest(name, candidates)
    return f"{show(name)} is not a domain that may get the AI access.{hint} {allowed}"


def _beside(settings: Settings, topology: Topology, file: str) -> Iterator[Problem]:
    """Ways to the services that nothing would hold."""
    for flow in topology.policy:
        within = _domains_in(flow, topology)
        if within and reached_by(flow, topology):
            yield Problem(
                f"{file}: {flow.why.partition(':')[0]}.from",
                f"{show(flow.names[0])} includes the domains {', '.join(within)}, and "
                "global.ai_access is exclusive: the rule would let in all of them. Name one domain "
                "by a rule of its own, or a smaller network.",
            )
    for flow in named_flows(topology, settings):
        if reached := reached_by(flow, topology):
            yield Problem(
                flow.why,
                f"is the address of {reached[0].full_name}, and global.ai_access is exclusive: "
                f"{flow.names[0]} would reach it whoever has the access. Leave it out: Open WebUI "
                "beside the services finds them by itself.",
            )
    for domain in topology.domains:
        for machine in ai_machines(domain):
            # That of other members is refused by stack.spans: nobody wrote it.
            made = {link.device for link in topology.links_to(machine)}
            for name in published(domain, machine).keys() - made:
                yield Problem(
                    f"{file}: {machine.place}.devices.{name}",
                    "has nat: true and lets in everybody who reaches its port, and "
                    "global.ai_access is exclusive. Leave nat out.",
                )


def _domains_in(flow: Flow, topology: Topology) -> list[str]:
    """The domains that a flow comes from, where it is of more than one, or of more than it."""
    if source_of(flow, topology):
        return []
    networks = [IPv4Network(end) for end in flow.sources]
    return [
        each.written
        for each in topology.domains
        if any(network.overlaps(each.subnet) and network.num_addresses > 1 for network in networks)
    ]
