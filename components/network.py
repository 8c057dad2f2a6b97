"""A domain's bridge. Bridges live in Incus' default project: other projects can have none."""

from __future__ import annotations

from typing import Any

import pulumi

from components.incus_object import MARK, NETWORK, IncusObject
from declaration.settings import Connection
from declaration.topology import DomainPlan


def desired_network(plan: DomainPlan) -> dict[str, Any]:
    """The bridge: the host has .254, Incus' own DNS and DHCP, NAT to the outside."""
    return {
        "description": f"incus-stt: bridge of {plan.name}",
        "config": {
            "ipv4.address": f"{plan.gateway}/{plan.subnet.prefixlen}",
            "ipv4.dhcp.ranges": plan.dhcp_range,
            "ipv4.nat": "true",
            "ipv6.address": "none",
            **MARK,
        },
    }


class Network(pulumi.ComponentResource):
    """The bridge ``net-<domain>``."""

    def __init__(
        self, plan: DomainPlan, connection: Connection, opts: pulumi.ResourceOptions
    ) -> None:
        super().__init__("stt:incus:Network", plan.bridge, None, opts)
        self.object = IncusObject(
            f"{plan.name}/network",
            NETWORK,
            [plan.bridge],
            # type is needed at creation, and the client ignores it afterwards
            {**desired_network(plan), "type": "bridge"},
            connection=connection,
            project="default",
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({})
