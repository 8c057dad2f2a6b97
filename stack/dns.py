"""Which DNS servers the machines of a domain may ask, beside their bridge's. Pure.

Of the addresses of the host Incus lets them ask every one. Here it is those that ``policy:`` or a
setting names, and where ``egress`` is ``open`` those of the internet.
"""

from __future__ import annotations

from declaration.policy import Flow, within
from declaration.topology import Topology
from stack.flows import Border

#: The port of DNS.
PORT = 53


def named_servers(border: Border, topology: Topology) -> list[Flow]:
    """The flows out of a domain that may lead to such a server.

    What leads to machines of a domain does not: on their bridge, the host's address is no machine.
    """
    return [
        flow
        for flow in border.egress
        if (not flow.ports or PORT in flow.ports)
        if not any(within(flow.destinations, domain) for domain in topology.domains)
    ]
