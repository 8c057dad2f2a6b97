"""The rule of the host's firewall that keeps machines from the DNS servers of other bridges."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pulumi

from agent.difference import Difference
from components.command import Command, Host, joined
from components.incus_object import host_command
from declaration.policy import Flow
from declaration.topology import DomainPlan
from host import firewall
from host.read import Live
from stack.declare import Declaration


def desired(plan: DomainPlan, servers: Sequence[Flow]) -> dict[str, Any]:
    """What a bridge's machines may ask for names, as a reviewer reads it."""
    return {
        "description": (
            f"incus-stt: of the host's addresses, machines on {plan.bridge} reach port 53 (DNS) of "
            f"{plan.gateway} only, and what is allowed here"
        ),
        "bridge": plan.bridge,
        "server": str(plan.gateway),
        "allowed": [
            {
                "source": ",".join(flow.sources),
                "destination": ",".join(flow.destinations),
                "description": flow.why,
                **({"protocol": flow.protocol} if flow.protocol else {}),
            }
            for flow in servers
        ],
    }


def name_of(domain: str) -> str:
    """The resource's name."""
    return f"{domain}/firewall"


def _noted(host: Host, name: str) -> Mapping[str, str]:
    """What the host showed of the rule once it was set; empty if it could not be set."""
    try:
        said = json.loads((host.outputs(name) or {}).get("stdout") or "{}")
    except ValueError:
        return {}
    return said.get("set") or {}


def is_within_reach(host: Host, domain: str) -> bool:
    """Whether the rule can be where the domain's machines are.

    Through a remote of Incus there is only Incus' API. Of a cluster's members only the one that
    answers is reached; if none was asked, it is as it was.
    """
    if host.connection.kind == "incus":
        return False
    member = host.placement.of(domain)
    if host.live is None:
        return not member or host.outputs(name_of(domain)) is not None
    return host.live.is_of(member)


class DnsRule(Command):
    """The rule of a bridge. It is there before the bridge is, and goes after it."""

    def __init__(
        self,
        plan: DomainPlan,
        host: Host,
        servers: Sequence[Flow],
        opts: pulumi.ResourceOptions,
    ) -> None:
        name = name_of(plan.name)
        drift: list[Difference] = []
        if host.live and host.live.firewall and host.known(name):
            drift = firewall.drift(plan.bridge, _noted(host, name), host.live.firewall)
        remove = host_command(host, "firewall", "remove", plan.bridge, "--owner")
        super().__init__(
            name,
            host,
            create=host_command(host, "firewall", "set"),
            delete=joined(f"{remove} ", host.owner),
            stdin=json.dumps(desired(plan, servers), sort_keys=True, ensure_ascii=False),
            identity=["firewall", plan.bridge],
            drift=drift,
            here=True,
            opts=opts,
        )


def warnings(declaration: Declaration, host: Host) -> list[str]:
    """Domains that are closed, but whose machines can carry data out within names."""
    closed = [each for each in declaration.topology.domains if each.domain.egress != "open"]
    found: dict[tuple[str, ...], list[str]] = {}
    for plan in closed:
        if host.is_left(plan.name):
            continue
        if why := _why_not(host, plan.name):
            found.setdefault(why, []).append(plan.name)
    return [*_unread(declaration, host)] + [
        f"{', '.join(names)}: machines can ask the DNS servers of the host's other bridges, and so "
        f"send data out within names, for {why}. To have that dropped: {todo} (docs/security.md)."
        for (why, todo), names in found.items()
    ]


def _unread(declaration: Declaration, host: Host) -> Iterator[str]:
    """The domains whose rule was not compared with what was set."""
    if not host.live or host.live.firewall:
        return
    names = [each.name for each in declaration.topology.domains if is_within_reach(host, each.name)]
    if names:
        yield (
            f"{', '.join(names)}: the {firewall.RULE} could not be read, so its drift was not "
            "checked. Run this again; if it stays: nft list ruleset, on the host as root, says why."
        )


def _why_not(host: Host, domain: str) -> tuple[str, ...]:
    """Why the rule does not hold, and what to do; empty if it does, or nobody knows."""
    if host.connection.kind == "incus":
        return firewall.REMOTE
    live: Live | None = host.live
    if live is None:
        return ()
    if not live.is_of(member := host.placement.of(domain)):
        return firewall.on_another(member, live.answers)
    return live.firewall.why_not if live.firewall else ()
