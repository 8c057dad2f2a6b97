"""A rule of the host's own firewall: a bridge's machines ask no DNS server but that bridge's.

Incus accepts what comes from a bridge to port 53 of every address of the host, and has no key for
that. Each bridge has a table of nftables of its own, whose chain comes before Incus' chains: what
it drops never gets there, and what it accepts goes on to them. So nothing of Incus, of another
bridge or of another stack is touched. Where systemd starts the host, a unit sets it again at boot.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from declaration.connection import Connection
from host.client import Client, HostError, shell
from host.firewall import CAN, FILE, FILES, READ, RULE, TABLE, UNIT, UNITS, parse_firewall, why_not
from host.hold import HOLD
from host.objects import NETWORK, Place, has_other_owner, owner_of

#: What a bridge may be called: no letter means anything to nft, systemd or a shell.
_BRIDGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,14}")
#: Incus' own chains have 0. Lower comes first.
_PRIORITY = -10
_PROTOCOLS = ("tcp", "udp")

#: What the kernel is told, in one go: no packet finds half of it.
_RULES = """add table inet {table}
delete table inet {table}
table inet {table} {{
\tchain input {{
\t\ttype filter hook input priority {priority}; policy accept;
\t\tiifname != "{bridge}" accept
\t\tmeta l4proto != {{ tcp, udp }} accept
\t\tth dport != 53 accept
\t\tip daddr {server} accept
{allowed}\t\tdrop
\t}}
}}
"""
#: After what empties the firewall at boot, and before the first machine starts. Whoever starts
#: nftables.service again empties it again: then this unit comes again too.
_UNIT = """[Unit]
Description=incus-stt: machines on {bridge} ask no DNS server but their bridge's
After=nftables.service
PartOf=nftables.service
Before=incus.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=nft -f {file}

[Install]
WantedBy=multi-user.target incus.service
"""

#: What to do after a boot that has taken the rule away.
_AGAIN = "After a boot, run up again."
#: What to do where nft fails.
_LOOK = "Try it on the host as root: nft list ruleset"

#: Sets the rules of stdin: `FOLDER RULES_FILE UNIT_FILE UNIT_NAME UNIT`. A user who may run only
#: nft with sudo has no unit for the boot.
_SET = (
    CAN
    + """boot=
if [ "$can" = yes ]; then
    set -e
    rules=$(cat)
    printf '%s\\n' "$rules" | $sudo nft -f -
    if [ -d /run/systemd/system ]; then
        $sudo mkdir -p "$1" &&
            printf '%s\\n' "$rules" | $sudo tee "$2" >/dev/null &&
            printf '%s' "$5" | $sudo tee "$3" >/dev/null &&
            $sudo systemctl daemon-reload &&
            $sudo systemctl --quiet enable --now "$4" || boot=no
    fi
    set +e
fi >&2
[ -z "$boot" ] || echo "boot no"
"""
    + READ
)
#: Takes them away: `FOLDER RULES_FILE UNIT_FILE UNIT_NAME TABLE HOLD`. What is missing is not a
#: failure. The last one is the table of a hold (hold.py) whose process was killed.
_REMOVE = (
    CAN
    + """[ "$can" = yes ] || { echo "why $why"; exit 0; }
set -e
if [ -e "$3" ]; then
    $sudo systemctl --quiet disable --now "$4"
    $sudo rm -f "$3" "$2"
    $sudo systemctl daemon-reload
    $sudo rmdir "$1" 2>/dev/null || :
fi
for table in "$5" "$6"; do
    printf 'add table inet %s\\ndelete table inet %s\\n' "$table" "$table"
done | $sudo nft -f -
"""
)


def rules(desired: Mapping[str, Any]) -> str:
    """The table of a bridge for nft; ``desired`` is what a Command has on stdin.

    Raises:
        ValueError: something in it is not a bridge, address or protocol.
    """
    bridge = checked(desired["bridge"])
    allowed = ""
    for each in desired["allowed"]:
        allowed += f"\t\tip saddr {_set(each['source'])} ip daddr {_set(each['destination'])} "
        if protocol := each.get("protocol", ""):
            if protocol not in _PROTOCOLS:
                raise ValueError(f"{protocol!r} is not a protocol of DNS")
            allowed += f"meta l4proto {protocol} "
        allowed += "accept\n"
    return _RULES.format(
        table=f"{TABLE}{bridge}",
        bridge=bridge,
        priority=_PRIORITY,
        server=IPv4Address(desired["server"]),
        allowed=allowed,
    )


def checked(bridge: str) -> str:
    """A bridge's name.

    Raises:
        ValueError: it is not the name of a bridge.
    """
    if not _BRIDGE.fullmatch(bridge):
        raise ValueError(f"{bridge!r} is not a bridge name")
    return bridge


def _set(ends: str) -> str:
    """Networks, addresses and ranges, with commas between them, as a set of nft."""
    return "{ " + ", ".join(_end(each) for each in ends.split(",")) + " }"


def _end(text: str) -> str:
    first, dash, last = text.partition("-")
    if dash:
        return f"{IPv4Address(first)}-{IPv4Address(last)}"
    return str(IPv4Network(text))


def _places(bridge: str) -> list[str]:
    """The first words of both scripts: the folder, the rules' file, the unit's, and its name."""
    unit = f"{UNIT}{checked(bridge)}.service"
    return [FILES, f"{FILES}/{FILE}{bridge}.nft", f"{UNITS}/{unit}", unit]


def apply_rules(connection: Connection, desired: Mapping[str, Any]) -> dict[str, Any]:
    """Set the rules of a bridge; what was done, and what the host shows of it, for the drift.

    Where the host does not let it be set, nothing is done, and ``why`` says so.

    Raises:
        HostError: nft or systemd refuses it.
    """
    bridge = desired["bridge"]
    places = _places(bridge)
    unit = _UNIT.format(bridge=bridge, file=places[1])
    said = _run(connection, bridge, [_SET, "sh", *places, unit], rules(desired))
    found = parse_firewall(said)
    if found is None:
        raise HostError(f"The {RULE} for {bridge} was set, and could not be read. {_LOOK}")
    if found.why_not:
        why, todo = found.why_not
        return {"done": "not set", "set": {}, "why": f"The {RULE} is not set: {why}. {todo}"}
    done = {"done": "set", "set": found.of(bridge)}
    if "boot no" in said.splitlines():
        why = f"The {RULE} for {bridge} is set until the host's next boot"
        done["why"] = f"{why}: no unit could be set up; that takes more of sudo than nft. {_AGAIN}"
    return done


def remove_rules(connection: Connection, bridge: str, owner: str) -> dict[str, Any]:
    """Take the rules of a bridge away, unless the bridge has another owner by now.

    Raises:
        HostError: nft or systemd refuses it, or Incus does not answer.
    """
    network = Client(connection).get(Place(bridge, "default").path(NETWORK))
    if network is not None and has_other_owner(network, owner):
        why = f"The {RULE} for {bridge} stays: {owner_of(network)} has taken the bridge over."
        return {"done": "left", "why": why}
    table = f"{TABLE}{checked(bridge)}"
    words = [_REMOVE, "sh", *_places(bridge), table, f"{HOLD}{bridge}"]
    reason = why_not(_run(connection, bridge, words))
    if not reason:
        return {"done": "deleted"}
    why = f"{reason[0]}. If it was set, run as root: nft delete table inet {table}"
    return {"done": "left", "why": f"The {RULE} for {bridge} was not taken away: {why}"}


def _run(connection: Connection, bridge: str, script: Sequence[str], stdin: str = "") -> str:
    """What a script says; ``script`` is it, its name and its words."""
    try:
        done = subprocess.run(  # noqa: S603  # the operator's own host
            [*shell(connection), shlex.join(["sh", "-c", *script])],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise HostError(f"The {RULE} for {bridge}: the host did not finish within 60 s.") from None
    if done.returncode:
        said = done.stderr.strip() or "it said nothing"
        raise HostError(f"The {RULE} for {bridge} was not changed: {said[-500:]}\n{_LOOK}")
    return done.stdout
