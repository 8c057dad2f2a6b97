"""The services that settings name by their URLs, and who asks them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from declaration.problems import Problem, show
from declaration.settings import Settings
from declaration.topology import MachinePlan, Topology
from declaration.urls import is_loopback
from stack.checks import GATEWAY_ROLE, OLLAMA_ROLE, STT_ROLE, WEBUI_ROLE
from stack.flows import named_urls
from stack.listening import is_proxy, listens_inside

#: The role that asks, and the role of who answers, by the setting that names a service.
_ROLES = {
    "stt:gateway.servers": (GATEWAY_ROLE, STT_ROLE),
    "stt:webui.stt_url": (WEBUI_ROLE, STT_ROLE),
    "stt:webui.ollama_url": (WEBUI_ROLE, OLLAMA_ROLE),
}


@dataclass(frozen=True)
class Asked:
    """A service that a setting names: its role, and the machines that ask it."""

    setting: str
    url: str
    role: str
    by: Sequence[MachinePlan]

    @property
    def host(self) -> str:
        """The address or the name in the URL."""
        return urlsplit(self.url).hostname or ""


def asked_services(settings: Settings, topology: Topology) -> Iterator[Asked]:
    """Each service that a setting names and a machine asks."""
    for setting, url in named_urls(settings):
        if setting in _ROLES:
            asking, role = _ROLES[setting]
            if by := topology.with_role(asking):
                yield Asked(setting, url, role, by)


def own_loopbacks(settings: Settings, topology: Topology) -> list[Problem]:
    """Services that are to be asked inside a machine that has none."""
    return [
        Problem(
            each.setting,
            f"{show(each.url)} is asked from {machine.name}, where it leads to {machine.name} "
            f"itself, and that has no {each.role}. Name the address of the machine that serves. "
            "Without the setting, it is the service of the same domain.",
        )
        for each in asked_services(settings, topology)
        if is_loopback(each.host)
        for machine in each.by
        if each.role not in machine.roles and not _listens_inside(topology, machine)
    ]


def _listens_inside(topology: Topology, machine: MachinePlan) -> bool:
    """Whether the operator has something else listen in a machine, which may be the service."""
    return any(
        is_proxy(each) and listens_inside(each) for each in topology.devices_of(machine).values()
    )
