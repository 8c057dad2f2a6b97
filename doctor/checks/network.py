"""The network of each domain: its bridge, its addresses, and the way out of the host."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_interface, ip_network
from typing import Any

from declaration.topology import DomainPlan
from doctor.case import Case
from doctor.check import check
from doctor.finding import Finding, broken, doubtful, good
from doctor.firewall import all_blocks
from host import firewall
from host.objects import is_marked


def _built(case: Case, domain: DomainPlan) -> bool:
    """Whether a machine of the domain was built already."""
    return any(plan.full_name in case.built for plan in domain.machines)


@check
def bridge(case: Case) -> Iterator[Finding]:
    """The bridge: Incus has it, with its address, and so does the host."""
    if case.server is None:
        return
    for domain in case.domains:
        yield _bridge(case, domain)


def _bridge(case: Case, domain: DomainPlan) -> Finding:
    name, wanted = domain.bridge, f"{domain.gateway}/{domain.subnet.prefixlen}"
    found = case.networks.get(name)
    if found is None:
        if _built(case, domain):
            return broken("network", f"the bridge {name} is gone", case.make("up"))
        return doubtful("network", f"no bridge {name} yet", f"{case.make('up')} makes it")
    if not found.get("managed"):
        todo = f"rename the domain, or on the host: ip link delete {name}"
        return broken("network", f"{name} is an interface that Incus does not manage", todo)
    if not is_marked(found):
        todo = "rename the domain, or take it over: stt:adopt (make drift shows what changes)"
        return broken("network", f"{name} is a network that incus-stt did not make", todo)
    address = found["config"].get("ipv4.address")
    if address != wanted:
        said = f"{name} has {address or 'no address'} in Incus, and {wanted} is declared"
        return broken("network", said, f"{case.make('up')} puts it back")
    there = [wanted] if case.remote else _addresses(case, name)
    if there is None:
        todo = "restart Incus, which makes it again"
        return broken("network", f"the host's interface {name} is gone", todo)
    if wanted not in there:
        said = f"the host's interface {name} has {', '.join(there) or 'no address'}"
        todo = f"on the host: ip address add {wanted} dev {name}"
        return broken("network", f"{said}, and not {wanted}", todo)
    return good("network", f"{name}, {wanted}")


def _addresses(case: Case, interface: str) -> list[str] | None:
    """The IPv4 addresses of one of the host's interfaces; None if it does not exist."""
    rows: list[dict[str, Any]] = case.answer("addresses").json or []
    row = next((row for row in rows if row.get("ifname") == interface), None)
    if row is None:
        return None
    addresses = [each for each in row.get("addr_info", []) if each.get("family") == "inet"]
    return [f"{each['local']}/{each['prefixlen']}" for each in addresses]


@check
def subnet(case: Case) -> Iterator[Finding]:
    """Whether a domain's addresses are somebody else's: another network, or a route."""
    file = case.declaration.settings.infra
    for domain in case.domains:
        others = _others(case, domain)
        if others:
            yield broken(
                "subnet",
                f"{domain.subnet} is taken: {', '.join(others)}",
                # No key names the subnet of a part.
                f"change global.addressing in {file}, or free that of the part {domain.name}"
                if domain.part_of
                else f"give {domain.place} another subnet: in {file}",
            )
        elif case.server or not case.remote:
            yield good("subnet", f"{domain.subnet} is not in use elsewhere")


def _others(case: Case, domain: DomainPlan) -> list[str]:
    ours = {domain.bridge, domain.former_bridge}
    found: dict[str, str] = {}
    for name, each in case.networks.items():
        address = (each.get("config") or {}).get("ipv4.address", "none")
        if address in ("none", "auto", "") or name in ours:
            continue
        if ip_interface(address).network.overlaps(domain.subnet):
            found[name] = f"network {name} ({address})"
    for route in case.answer("routes").json or []:
        place, interface = str(route.get("dst", "default")), str(route.get("dev", ""))
        if place == "default" or interface in ours or interface in found:
            continue
        if ip_network(place, strict=False).overlaps(domain.subnet):
            found[place] = f"route {place} dev {interface}"
    return list(found.values())


@check
def isolation(case: Case) -> Iterator[Finding]:
    """Whether the host's firewall sees what goes from one machine of a bridge to another."""
    names = [domain.name for domain in case.domains if len(domain.machines) > 1]
    if case.remote or not names:
        return
    if case.answer("bridge_filter").text.strip() == "1":
        yield good("isolation", "machines reach only the services of each other")
        return
    yield doubtful(
        "isolation",
        f"within {', '.join(names)} every machine reaches every port of the others: the firewall "
        "does not see what goes through a bridge",
        "on the host: modprobe br_netfilter; and that at each boot: a line br_netfilter in "
        "/etc/modules-load.d/br_netfilter.conf (docs/security.md)",
    )


#: What happens without a program on the host.
_MISSED = {
    "conntrack": "connections that a machine opened while its bridge was open stay open",
    "nft": "a bridge filters nothing for about a second while up opens or closes it",
}


@check
def connections(case: Case) -> Iterator[Finding]:
    """Whether `up` can end open connections, and hold new ones while Incus writes rules again."""
    if case.remote:
        return
    missing = [name for name in _MISSED if not case.answer(name).there]
    root = case.answer("user").text.strip() == "0" or case.answer("sudo").worked
    if root and not missing:
        tables = case.answer("tables")
        there = any(domain.bridge in case.networks for domain in case.domains)
        if there and tables.worked and "table inet incus" not in tables.text.splitlines():
            yield doubtful(
                "connections",
                f"{_MISSED['nft']} (Incus uses iptables here)",
                "use nftables on the host, and restart Incus (docs/security.md)",
            )
        else:
            yield good(
                "connections", "those through a bridge that closes are cut; its rules always hold"
            )
        return
    why = f"{' and '.join(missing)} not there" if missing else "not root, and sudo wants a password"
    todo = (
        f"on the host: apt-get install {' '.join('nftables' if m == 'nft' else m for m in missing)}"
        if missing
        else "let this user run conntrack and nft with sudo without a password"
    )
    text = " and ".join(_MISSED[name] for name in (missing if root else _MISSED))
    yield doubtful("connections", f"{text} ({why})", f"{todo} (docs/security.md)")


@check
def names(case: Case) -> Iterator[Finding]:
    """Whether machines are kept from the DNS servers of the host's other bridges."""
    closed = [domain for domain in case.domains if domain.domain.egress != "open"]
    bad: dict[tuple[str, ...], list[str]] = {}
    there = [domain for domain in closed if domain.bridge in case.networks]
    for domain in closed if case.remote else there:
        if reason := _asks_others(case, domain):
            bad.setdefault(reason, []).append(domain.name)
    for (why, todo), domains in bad.items():
        what = f"those of {', '.join(domains)} can send data out within names, by another bridge's"
        yield doubtful("DNS", f"{what} DNS server: {why}", f"{todo} (docs/security.md)")
    if there and not bad:
        yield good("DNS", "machines ask no other bridge's DNS server")


def _asks_others(case: Case, domain: DomainPlan) -> tuple[str, ...]:
    """Why a domain's machines can ask other DNS servers, and what to do; empty if not."""
    if case.remote:
        return firewall.REMOTE
    for plan in domain.machines:
        if not case.is_here(plan):
            location = (case.instance(plan) or {}).get("location", "another member")
            here = ((case.server or {}).get("environment") or {}).get("server_name", "this one")
            return firewall.on_another(location, here)
    if not case.answer("nft").there:
        return firewall.NO_NFT
    if not case.answer("tables").worked:
        root = case.answer("user").text.strip() == "0"
        return firewall.NO_KERNEL if root else firewall.NO_ROOT
    if f"table inet {firewall.TABLE}{domain.bridge}" in case.answer("tables").text.splitlines():
        return ()
    return (f"the {firewall.RULE} is not there", f"{case.make('up')} sets it")


@check
def forwarding(case: Case) -> Iterator[Finding]:
    """Whether the host passes on what comes from a bridge. Docker's FORWARD policy drops it."""
    if case.remote:
        return
    there = [domain.bridge for domain in case.domains if domain.bridge in case.networks]
    if case.answer("ip_forward").text.strip() == "0":
        if there:
            todo = "on the host: sysctl -w net.ipv4.ip_forward=1, or restart Incus, which sets it"
            yield broken("forwarding", "the kernel forwards no IPv4 (net.ipv4.ip_forward=0)", todo)
        else:
            yield good("forwarding", "off; Incus switches it on with its first bridge")
        return
    nft, iptables = case.answer("nft"), case.answer("iptables")
    if not nft.worked and not iptables.worked:
        why = nft.last if nft.there else iptables.last if iptables.there else "no nft, no iptables"
        yield doubtful(
            "forwarding",
            f"the firewall cannot be examined: {why}",
            "as root on the host: nft list ruleset, or iptables -S FORWARD",
        )
        return
    bad = False
    for domain in case.domains:
        name = domain.bridge
        blocks = all_blocks(nft.json, iptables.text, name)
        if blocks:
            bad = True
            yield broken(
                "forwarding",
                f"the firewall drops what {name} sends: policy DROP of {' and of '.join(blocks)}",
                f"on the host: {_let_out(case, blocks[0], name)} (docs/troubleshooting.md)",
            )
    if not bad:
        yield good("forwarding", "the host's firewall lets the machines out")


def _let_out(case: Case, chain: str, bridge: str) -> str:
    """The commands that let a bridge out through a chain that drops."""
    if case.answer("iptables").there:
        said = case.answer("iptables").text
        own = "DOCKER-USER" if "-N DOCKER-USER" in said else "FORWARD"
        rule = f"iptables -I {own}"
        answers = "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
        return f"{rule} -i {bridge} -j ACCEPT; {rule} -o {bridge} {answers}"
    rule = f"nft insert rule {chain}"
    answers = "ct state related,established accept"
    return f"{rule} iifname {bridge} accept; {rule} oifname {bridge} {answers}"
