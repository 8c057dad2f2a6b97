"""Services that do not listen where policy, proxy devices and settings lead to them. Pure.

A service that listens on the loopback is reached only from inside its machine, and one that listens
on the machine's address never by the loopback.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network

from declaration.policy import Flow
from declaration.problems import Problem, show
from declaration.settings import Settings
from declaration.topology import MachinePlan, Topology
from declaration.urls import is_loopback
from stack.asked import Asked, asked_services
from stack.leads import address_from, port_of
from stack.listening import (
    Listening,
    Service,
    connects,
    is_proxy,
    listening,
    listens_inside,
    place_of,
)
from stack.role_rules import RoleRules


def reach_problems(
    settings: Settings, topology: Topology, roles: Mapping[str, RoleRules], file: str
) -> list[Problem]:
    """Policy, proxy devices and URLs that lead to where nothing listens.

    ``file`` is how messages call the topology.
    """
    there = listening(settings, topology, roles)
    problems: list[Problem] = []
    for flow in topology.policy:
        place = f"{file}: {flow.why.partition(':')[0]}.ports"
        problems += _of_rule(flow, place, topology, there)
    for each in there.values():
        problems += _of_devices(each, topology, there, file)
    for asked in asked_services(settings, topology):
        switched_off = not roles[asked.role].listens(settings)
        for machine in asked.by:
            end = address_from(machine, asked.host, topology), port_of(asked.url)
            problems += _of_url(asked, machine, end, there, switched_off=switched_off)
    return list(dict.fromkeys(problems))  # once for all that `count` makes


def _of_rule(
    flow: Flow, place: str, topology: Topology, there: Mapping[str, Listening]
) -> Iterator[Problem]:
    to = [IPv4Network(each) for each in flow.destinations]
    subnets = [domain.subnet for domain in topology.domains]
    if flow.protocol != "tcp" or not all(any(map(each.subnet_of, subnets)) for each in to):
        return  # it leads elsewhere too
    ends = [each for each in there.values() if any(each.machine.address in net for net in to)]
    if not all(each.services for each in ends):
        return  # the operator may have something listen there
    for port in flow.ports:
        missed = [(each, found) for each in ends if (found := each.missed(each.address, port))]
        if missed and not any(each.reached(each.address, port) for each in ends):
            names = " and ".join(each.machine.name for each, _ in missed)
            service = missed[0][1]
            message = (
                f"{port} lets {flow.names[0]} reach {names}, where {service}. Remove the port, or "
                f"{service.bound.remedy}."
            )
            yield Problem(place, message)


def _of_devices(
    own: Listening, topology: Topology, there: Mapping[str, Listening], file: str
) -> Iterator[Problem]:
    # What is wrong with those between members is said of who asks there (stack.spans).
    made = {link.device for link in topology.links_to(own.machine)}
    for name, device in topology.devices_of(own.machine).items():
        if name in made:
            continue
        for address, port in connects(device, own.machine) if is_proxy(device) else ():
            to = own if is_loopback(address) else there.get(address)
            if to and (service := to.missed(address, port)):
                # Without `nat` Incus connects from inside the machine that has the device.
                near = to is own and not listens_inside(device) and device.get("nat") != "true"
                yield Problem(
                    f"{file}: {place_of(topology, own.machine, name)}.connect",
                    f"{show(device['connect'])} leads to {to.machine.name}, where {service}. "
                    f"{_instead('tcp:', service, near=near)}",
                )


def _of_url(
    asked: Asked,
    machine: MachinePlan,
    end: tuple[str, int | None],
    there: Mapping[str, Listening],
    *,
    switched_off: bool,
) -> Iterator[Problem]:
    address, port = end
    inside = is_loopback(address)
    to = there.get(str(machine.address) if inside else address)
    if to is None or port is None or to.reached(address, port):
        return
    lead = f"{show(asked.url)} is asked from {machine.name} and leads to {to.machine.name}, where"
    if service := to.services.get(port):
        instead = _instead("http://", service, near=to.machine == machine)
        yield Problem(asked.setting, f"{lead} {service}. {instead}")
        return
    has = asked.role in to.machine.roles
    if (inside and not has) or (has and switched_off) or not to.services:
        return  # it is said already, nothing is asked now, or the operator has something there
    allowed = ", ".join(f"{each.port} ({each.setting})" for each in to.services.values())
    message = (
        f"{lead} nothing listens on port {port}. Allowed there: {allowed}. Use one of them, or "
        "name the machine that serves."
    )
    yield Problem(asked.setting, message)


def _instead(scheme: str, service: Service, *, near: bool) -> str:
    """What to do; ``near``: it is asked from inside its machine."""
    address, remedy = service.bound.address, service.bound.remedy
    if near or not is_loopback(address):
        return f'Use "{scheme}{address}:{service.port}", or {remedy}.'
    return f"{remedy[0].upper()}{remedy[1:]}."
