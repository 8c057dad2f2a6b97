"""Exclusive AI access: one domain at a time reaches STT and Ollama of another domain. Pure.

With ``global.ai_access: exclusive`` the rules of ``policy:`` that lead from one domain to a machine
with STT or Ollama of another one are held, but those of the domain that has the access. The domain
with the services reaches them always, and so does the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Network

from declaration.policy import Flow, within
from declaration.settings import Settings
from declaration.topology import DomainPlan, MachinePlan, Topology
from stack.checks import GATEWAY_ROLE, OLLAMA_ROLE, STT_ROLE

#: The value of ``stt:aiAccess`` with which no other domain reaches the services.
NOBODY = "nobody"
#: The resource that has the services forget, between two domains' turns.
HAND_OVER = "ai_access/hand-over"


@dataclass(frozen=True)
class AiAccess:
    """Who may get the access, and who has it: ``holder``, a name in the file, or ``NOBODY``."""

    topology: Topology
    holder: str

    @property
    def flows(self) -> dict[str, list[Flow]]:
        """The ways to the services, by the domain that they are of; those not open are held."""
        found: dict[str, list[Flow]] = {}
        for flow in self.topology.policy:
            source = source_of(flow, self.topology)
            if source and reached_by(flow, self.topology):
                found.setdefault(source.written, []).append(self.marked(flow))
        return found

    @property
    def candidates(self) -> list[str]:
        """The domains that may get the access, by their names in the file, in its order."""
        found = self.flows
        return [each.written for each in self.topology.domains if each.written in found]

    def marked(self, flow: Flow) -> Flow:
        """The flow; held where it is another domain's way to the services."""
        source = source_of(flow, self.topology)
        if source is None or source.written == self.holder or not reached_by(flow, self.topology):
            return flow
        return replace(flow, held=f"{self.holder} has the AI access")


def ai_access(settings: Settings, topology: Topology) -> AiAccess | None:
    """Who has the access; None if it is open to all."""
    if topology.ai_access != "exclusive":
        return None
    return AiAccess(topology, settings.aiAccess or topology.ai_access_default)


def ai_machines(domain: DomainPlan) -> list[MachinePlan]:
    """The machines of a domain with STT, the gateway in front of it, or Ollama."""
    services = {STT_ROLE, GATEWAY_ROLE, OLLAMA_ROLE}
    return [each for each in domain.machines if services & set(each.roles)]


def source_of(flow: Flow, topology: Topology) -> DomainPlan | None:
    """The domain from whose machines a flow comes; None if it is of none, or of several."""
    return next((each for each in topology.domains if within(flow.sources, each)), None)


def reached_by(flow: Flow, topology: Topology) -> list[MachinePlan]:
    """The machines with STT or Ollama that a flow from elsewhere than their own domain reaches."""
    domain = next((each for each in topology.domains if within(flow.destinations, each)), None)
    if domain is None or within(flow.sources, domain):
        return []
    return [each for each in ai_machines(domain) if _has(flow.destinations, each)]


def _has(ends: Sequence[str], machine: MachinePlan) -> bool:
    return any(machine.address in IPv4Network(end) for end in ends if "-" not in end)
