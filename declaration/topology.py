"""From infra.yml to names and addresses: what exists, exactly."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import Literal

from declaration.environment import Environment
from declaration.gpu_devices import Vendor, device_problems, may_be_same, vendor_of
from declaration.idmap import is_isolated
from declaration.infra import LAST_MACHINE, NAME_MAX, Domain, Infra, Machine, Profile
from declaration.members import Part, choose_subnets, split
from declaration.memory import DEFAULT, LIMIT
from declaration.policy import Flow, policy_flows
from declaration.problems import DeclarationError, Problem, show, suggest

#: .100 to .199 is DHCP's; .254 is the host.
DHCP_FIRST, DHCP_LAST, GATEWAY = 100, 199, 254

#: Where a subnet may be (RFC 1918). All else is somebody's on the internet, or the kernel's.
PRIVATE = tuple(map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")))


@dataclass(frozen=True)
class MachinePlan:
    """A machine with its address.

    ``place`` is where the file has it, and ``written`` its name there: that of all that ``count``
    makes.
    """

    name: str
    written: str
    domain: str
    place: str
    address: IPv4Address
    machine: Machine
    #: The GPU devices that its profiles and it itself have.
    gpus: tuple[Mapping[str, str], ...] = ()
    #: Whether its users are nobody else's on the host.
    isolated: bool = True
    #: How much memory it may take (``declaration.memory``).
    memory: str = DEFAULT

    @property
    def roles(self) -> list[str]:
        """The roles, in file order."""
        return self.machine.roles

    @property
    def gpu_vendor(self) -> Vendor | None:
        """Whose card it has, if any."""
        return vendor_of(self.gpus[0]) if self.gpus else None

    def may_share_card(self, other: MachinePlan) -> bool:
        """Whether it and another machine may get the same card, as far as the file says."""
        return any(may_be_same(one, each) for one in self.gpus for each in other.gpus)

    @property
    def full_name(self) -> str:
        """The name with the domain's."""
        return f"{self.domain}/{self.name}"

    def resource(self, part: str) -> str:
        """The name of a resource within this machine."""
        return f"{self.full_name}/{part}"


@dataclass(frozen=True)
class DomainPlan:
    """A domain with its subnet; ``written`` is its name in the file.

    ``part_of`` is the name of its domain there, if it is a part of one (``declaration.members``).
    """

    written: str
    environment: Environment
    subnet: IPv4Network
    domain: Domain
    machines: tuple[MachinePlan, ...]
    part_of: str = ""

    @property
    def name(self) -> str:
        """Its name, and that of its Incus project."""
        return self.environment.domain(self.written)

    @property
    def whole(self) -> str:
        """The name of its domain in the file, which its parts have in common."""
        return self.part_of or self.written

    @property
    def place(self) -> str:
        """Where the file has it."""
        return f"domains.{self.whole}"

    @property
    def former(self) -> str:
        """The name before a rename (``formerly:``); the same if there was none."""
        return self.environment.domain(self.domain.formerly or self.written)

    @property
    def bridge(self) -> str:
        """The bridge's name."""
        return self.environment.bridge(self.written)

    @property
    def former_bridge(self) -> str:
        """The bridge's name before a rename."""
        return self.environment.bridge(self.domain.formerly or self.written)

    @property
    def member(self) -> str:
        """Where its machines are in an Incus cluster, as the file says: a name, @GROUP, or ""."""
        named = (each.machine.member for each in self.machines if each.machine.member)
        return self.domain.member or next(named, "")

    @property
    def way_out(self) -> str:
        """The bridge, where `up` opens it to the internet to install something; else empty."""
        return self.bridge if self.domain.egress == "install" else ""

    @property
    def gateway(self) -> IPv4Address:
        """The host's address on the bridge."""
        return self.subnet[GATEWAY]

    @property
    def dhcp_range(self) -> str:
        """Addresses for what is not declared here, as Incus writes a range."""
        return f"{self.subnet[DHCP_FIRST]}-{self.subnet[DHCP_LAST]}"

    @property
    def profiles(self) -> dict[str, Profile]:
        """The domain's own profiles."""
        return self.domain.profiles


@dataclass(frozen=True)
class Link:
    """How machines of one part of a domain reach a service of another part.

    The machine ``to`` has the proxy device ``device``, which listens at its member's ``address``,
    on ``port``. The machine ``asking``, whose own member has the address ``source``, asks there by
    ``url``, as if ``setting`` had it. Machines are full names.
    """

    setting: str
    url: str
    asking: str
    source: IPv4Address
    to: str
    device: str
    address: IPv4Address
    port: int


@dataclass(frozen=True)
class Topology:
    """All domains, with every address known.

    ``members`` are the addresses of ``global.members``; ``links`` are those between the parts of
    domains (``stack.spans``).
    """

    domains: tuple[DomainPlan, ...]
    gpu_policy: Literal["exclusive", "shared"] = "exclusive"
    policy: tuple[Flow, ...] = ()
    ai_access: Literal["open", "exclusive"] = "open"
    ai_access_default: str = ""
    trusted_networks: tuple[IPv4Network, ...] = ()
    members: Mapping[str, IPv4Address] = field(default_factory=dict)
    links: tuple[Link, ...] = ()

    @property
    def machines(self) -> Iterator[MachinePlan]:
        """Every machine of every domain."""
        return (machine for domain in self.domains for machine in domain.machines)

    def with_role(self, role: str, domain: str | None = None) -> list[MachinePlan]:
        """The machines with a role (in a domain), in the file's order."""
        return [
            machine
            for machine in self.machines
            if role in machine.roles and domain in (None, machine.domain)
        ]

    def nearest(self, role: str, machine: MachinePlan) -> MachinePlan | None:
        """The machine itself where it has a role, else the first of its domain that has it."""
        having = self.with_role(role, machine.domain)
        return machine if machine in having else next(iter(having), None)

    def parts_of(self, domain: str) -> list[DomainPlan]:
        """A domain of the file with all its parts, by the name of any of them."""
        [whole] = [each.whole for each in self.domains if each.name == domain]
        return [each for each in self.domains if each.whole == whole]

    def with_role_in_parts(self, role: str, domain: str) -> list[MachinePlan]:
        """The machines with a role in all parts of a domain, by the name of any of them."""
        parts = self.parts_of(domain)
        return [each for part in parts for each in self.with_role(role, part.name)]

    def links_to(self, machine: MachinePlan) -> list[Link]:
        """How other parts of its domain reach a machine."""
        return [link for link in self.links if link.to == machine.full_name]

    def former_name(self, resource: str) -> str:
        """A resource's name before a rename (``formerly:``); the same if there was none."""
        domain, _, rest = resource.partition("/")
        plan = next((plan for plan in self.domains if plan.name == domain), None)
        if plan is None:
            return resource
        machine, _, part = rest.partition("/")
        for each in plan.machines:
            if part and each.name == machine and each.machine.formerly:
                rest = f"{each.machine.formerly}/{part}"
        return f"{plan.former}/{rest}"

    def devices_of(self, machine: MachinePlan) -> dict[str, dict[str, str]]:
        """The devices that the file gives to a machine, by name; its profiles' among them."""
        [domain] = [each.domain for each in self.domains if each.name == machine.domain]
        return declared_devices(domain, machine.machine)

    @property
    def wants_gpu(self) -> list[MachinePlan]:
        """The machines that own a GPU."""
        return [machine for machine in self.machines if machine.machine.gpu]


def plan_topology(
    infra: Infra,
    roles: Collection[str],
    shown: str = "infra.yml",
    environment: Environment = Environment(),  # noqa: B008  # it cannot be changed
) -> Topology:
    """Give every domain its subnet and every machine its address.

    ``roles`` are the known roles; ``shown`` is how messages call the file.

    Raises:
        DeclarationError: names, addresses, roles, profiles or GPUs that do not fit together.
    """
    problems: list[Problem] = []
    domains: list[DomainPlan] = []
    infra = environment.apply(infra, shown)
    for name, domain in infra.domains.items():
        place = f"{shown}: domains.{name}"
        _check_names(domain, roles, place, problems)
        _replicas(domain, place, problems)  # of all its parts together
    parts = split(infra, environment, shown, problems)
    subnets = choose_subnets(infra, parts, environment, shown, problems)
    for part in parts:
        subnet, place = subnets.get(part.written), f"{shown}: domains.{part.of}"
        if subnet is None:
            continue
        if wrong := _bad_subnet(subnet, part, place):
            problems.append(wrong)
            continue
        domain = environment.at_home(part.domain, subnets.values())
        machines = _addresses(part, environment, domain, subnet, place, problems)
        part_of = part.of if part.number else ""
        domains.append(DomainPlan(part.written, environment, subnet, domain, machines, part_of))
    _check_overlaps(domains, shown, problems)
    _check_members(domains, shown, problems)
    problems += _members_within(infra, domains, shown)
    _check_gpus(infra, domains, shown, problems)
    policy = policy_flows(infra, domains, shown, problems)
    if problems:
        raise DeclarationError(list(dict.fromkeys(problems)))  # once for all that `count` makes
    settings = infra.global_
    return Topology(
        tuple(domains),
        settings.gpu_policy,
        policy,
        settings.ai_access,
        settings.ai_access_default,
        tuple(settings.trusted_networks),
        settings.members,
    )


def _bad_subnet(subnet: IPv4Network, part: Part, place: str) -> Problem | None:
    """A subnet of another size, of the internet, or that the kernel has for something else."""
    if subnet.prefixlen != 24:
        message = f"{show(str(subnet))} is not a /24. Use a /24, such as 10.120.0.0/24."
        return Problem(f"{place}.subnet", message)
    if any(subnet.subnet_of(each) for each in PRIVATE):
        return None
    allowed = ", ".join(map(str, PRIVATE))
    if part.domain.subnet:
        message = f"{show(str(subnet))} is not private. Use a /24 of one of {allowed}."
        return Problem(f"{place}.subnet", message)
    # No key names that of a part.
    of, instead = f" of its part {part.written}", f": private is what is in one of {allowed}."
    if not part.number:
        of, instead = "", f", or give it a subnet: a /24 of one of {allowed}."
    return Problem(
        place,
        f"its subnet {subnet}{of}, which follows from global.addressing, is not private. Change "
        f"base_octet, zone_base or zone_step{instead}",
    )


def _addresses(
    part: Part,
    environment: Environment,
    domain: Domain,
    subnet: IPv4Network,
    place: str,
    problems: list[Problem],
) -> tuple[MachinePlan, ...]:
    """Pinned addresses first; the other machines get the free ones, in file order.

    Those that ``count`` adds get them from the last one down: neither another ``count`` nor a
    machine that is added to the file changes the addresses of the others.
    """
    machines = _replicas(domain, place, problems)
    pinned = _pinned(machines, subnet, place, problems)
    free = deque(subnet[n] for n in range(1, LAST_MACHINE + 1) if subnet[n] not in pinned)
    addresses: dict[str, IPv4Address | None] = {}
    for each in sorted(machines, key=lambda each: machines[each][0] != each):
        written, machine = machines[each]
        take = free.popleft if each == written else free.pop
        addresses[each] = machine.ip or (take() if free else None)
    plans: list[MachinePlan] = []
    for machine_name, (written, machine) in machines.items():
        address = addresses[machine_name]
        if address is None:
            message = f"finds no free address: a domain has room for {LAST_MACHINE} machines."
            problems.append(Problem(f"{place}.machines.{written}", message))
        else:
            config = _config(domain, machine)
            plans.append(
                MachinePlan(
                    machine_name,
                    written,
                    environment.domain(part.written),
                    f"domains.{part.of}.machines.{written}",
                    address,
                    machine,
                    tuple(_gpus(domain, machine)),
                    is_isolated(config, default=True),
                    config.get(LIMIT, DEFAULT),
                )
            )
    return tuple(plans)


def _replicas(
    domain: Domain, place: str, problems: list[Problem]
) -> dict[str, tuple[str, Machine]]:
    """Every machine by its name, with its name in the file."""
    found: dict[str, tuple[str, Machine]] = {}
    for written, machine in domain.machines.items():
        for name, each in machine.replicas(written).items():
            if len(name) > NAME_MAX:
                message = f"makes a machine {name}, and a name has at most {NAME_MAX} characters."
                problems.append(Problem(f"{place}.machines.{written}.count", message))
            if name in found:
                message = (
                    f"makes a machine {name}, and so does {found[name][0]}. Give one of them "
                    "another name."
                )
                problems.append(Problem(f"{place}.machines.{written}", message))
            found[name] = written, each
    return found


def _pinned(
    machines: Mapping[str, tuple[str, Machine]],
    subnet: IPv4Network,
    place: str,
    problems: list[Problem],
) -> dict[IPv4Address, str]:
    """The machines whose addresses the file says, by address."""
    allowed = f"{subnet[1]} to {subnet[LAST_MACHINE]}"
    pinned: dict[IPv4Address, str] = {}
    for name, (written, machine) in machines.items():
        where = f"{place}.machines.{written}.ip"
        if machine.ip is None:
            continue
        if not subnet[1] <= machine.ip <= subnet[LAST_MACHINE]:
            of = f" ({name})" if name != written else ""
            message = f"{machine.ip}{of} is not allowed. Use one of {allowed}."
            problems.append(Problem(where, message))
        elif machine.ip in pinned:
            also = f"{machine.ip} is the address of {pinned[machine.ip]} too"
            problems.append(Problem(where, f"{also}. Use another of {allowed}."))
        pinned.setdefault(machine.ip, name)
    return pinned


def declared_devices(domain: Domain, machine: Machine) -> dict[str, dict[str, str]]:
    """The devices of a machine by name; later profiles and the machine itself win."""
    devices: dict[str, dict[str, str]] = {}
    profiles = _profiles(domain, machine)
    for given in [*(profile.devices for profile in profiles), machine.devices]:
        devices |= given
    return devices


def _profiles(domain: Domain, machine: Machine) -> list[Profile]:
    return [domain.profiles[name] for name in machine.profiles if name in domain.profiles]


def _config(domain: Domain, machine: Machine) -> dict[str, str]:
    """What is said of a machine; later profiles and the machine itself win."""
    config: dict[str, str] = {}
    for given in [*(profile.config for profile in _profiles(domain, machine)), machine.config]:
        config |= given
    return config


def _gpus(domain: Domain, machine: Machine) -> list[dict[str, str]]:
    devices = declared_devices(domain, machine).values()
    return [device for device in devices if device.get("type") == "gpu"]


def _check_names(
    domain: Domain, roles: Collection[str], place: str, problems: list[Problem]
) -> None:
    profiles = ["default", *domain.profiles]
    if "default" in domain.profiles:
        problems.append(
            Problem(
                f"{place}.profiles.default",
                "is made by the program. Give your profile another name.",
            )
        )
    for name, machine in domain.machines.items():
        for kind, words, known in (
            ("profile", machine.profiles, profiles),
            ("role", machine.roles, sorted(roles)),
        ):
            where = f"{place}.machines.{name}.{kind}s"
            for index, word in enumerate(words):
                if word not in known:
                    hint = suggest(word, known)
                    problems.append(
                        Problem(
                            f"{where}.{index}",
                            f"{show(word)} is not a {kind}.{hint} Allowed: {', '.join(known)}.",
                        )
                    )
                elif word in words[:index]:
                    problems.append(
                        Problem(f"{where}.{index}", f"{show(word)} is listed twice. Remove one.")
                    )
        for device in ("eth0", "root"):
            if device in machine.devices:
                message = "is made by the program. Give your device another name."
                problems.append(Problem(f"{place}.machines.{name}.devices.{device}", message))
        if "default" not in machine.profiles:
            problems.append(
                Problem(
                    f"{place}.machines.{name}.profiles",
                    "lacks default, which gives the machine its disk and network. Add it.",
                )
            )


def _check_overlaps(domains: list[DomainPlan], shown: str, problems: list[Problem]) -> None:
    for index, domain in enumerate(domains):
        for other in domains[:index]:
            if domain.subnet.overlaps(other.subnet):
                problems.append(
                    Problem(
                        f"{shown}: {domain.place}",
                        f"its subnet {domain.subnet} overlaps {other.subnet} of {other.name}. "
                        "Give one of them another subnet.",
                    )
                )


def _check_members(domains: list[DomainPlan], shown: str, problems: list[Problem]) -> None:
    """A bridge does not reach from one member of a cluster to another."""
    for domain in domains:
        for plan in domain.machines:
            if plan.machine.member not in (None, domain.member):
                first = next(each.name for each in domain.machines if each.machine.member)
                problems.append(
                    Problem(
                        f"{shown}: {plan.place}.member",
                        f"{show(plan.machine.member)} is not where {first} is "
                        f"({show(domain.member)}), and machines of one domain reach each other on "
                        "one member only. Name the same member; or, to have a domain on several "
                        "members, name the domain's own, domains.NAME.member, and the address of "
                        "each in global.members: see docs/scale.md.",
                    )
                )


def _members_within(infra: Infra, domains: list[DomainPlan], shown: str) -> Iterator[Problem]:
    """Addresses of members that are on a domain's bridge, whose machines would be let in as one."""
    for name, address in infra.global_.members.items():
        for domain in domains:
            if address in domain.subnet:
                message = (
                    f"{address} is in the subnet {domain.subnet} of {domain.name}, and is not "
                    f"where other members reach {name}. Use the address that `incus cluster list` "
                    "shows."
                )
                yield Problem(f"{shown}: global.members.{name}", message)


def _check_gpus(
    infra: Infra, domains: list[DomainPlan], shown: str, problems: list[Problem]
) -> None:
    owners: dict[str, list[MachinePlan]] = {}
    for domain in domains:
        giving = [name for name, profile in domain.profiles.items() if profile.has_gpu]
        for place, devices in [
            *((f"profiles.{name}", each.devices) for name, each in domain.profiles.items()),
            *((f"machines.{each.written}", each.machine.devices) for each in domain.machines),
        ]:
            for name, device in devices.items():
                if device.get("type") == "gpu":
                    where = f"{shown}: {domain.place}.{place}.devices.{name}"
                    problems += device_problems(device, where)
        for plan in domain.machines:
            place = f"{shown}: {plan.place}"
            given = [name for name in plan.machine.profiles if name in giving]
            given += ["of its own"] if plan.gpus and not given else []
            if len({vendor_of(device) for device in plan.gpus}) > 1:
                problems.append(
                    Problem(place, "has GPUs of two vendors. Give it those of one of them.")
                )
            if plan.machine.gpu and not given:
                problems.append(
                    Problem(
                        f"{place}.gpu",
                        "is true, but none of its profiles has a gpu device. Add one to profiles"
                        + (f", such as {giving[0]}." if giving else "."),
                    )
                )
            if given and not plan.machine.gpu:
                problems.append(
                    Problem(
                        f"{place}.gpu",
                        f"is not true, but a profile or device ({given[0]}) gives it a GPU. Set "
                        "gpu: true.",
                    )
                )
            if plan.machine.gpu:
                # Which member of a group it will be is not known here (gpu.ownership).
                group = domain.member.startswith("@")
                where = f"@{domain.name}" if group else domain.member
                owners.setdefault(where, []).append(plan)
    if infra.global_.gpu_policy == "exclusive":
        problems += _same_cards(owners.values(), shown)


def _same_cards(owners: Iterable[list[MachinePlan]], shown: str) -> Iterator[Problem]:
    """Machines of one host that may get the same card."""
    for machines in owners:
        names = [
            each.full_name
            for each in machines
            if any(each.may_share_card(other) for other in machines if other is not each)
        ]
        if names:
            yield Problem(
                f"{shown}: global.gpu_policy",
                f"is exclusive, but {len(names)} machines may get the same card: "
                f"{', '.join(names)}. Name a card for each by pci, leave gpu: true on one of them, "
                "or set gpu_policy: shared.",
            )
