"""What the host's own firewall has for the bridges of this program (``host.dns_rule``)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.difference import Difference, compare_text, missing
from host.root import AS_ROOT

#: The table of a bridge is called so, and then as the bridge is.
TABLE = "incus-stt-dns."
#: The same for the unit that sets it again at boot, and the file that has it.
UNIT, FILE = "incus-stt-dns-", "dns-"
UNITS, FILES = "/etc/systemd/system", "/etc/incus-stt"
#: What the rule itself is called.
RULE = "rule of the host's firewall"

#: Whether there is nft, and root for it.
CAN = f"""{AS_ROOT}export LC_ALL=C
can=no tables=
if ! command -v nft >/dev/null; then why=nft
elif ! tables=$($sudo nft list tables 2>/dev/null </dev/null); then
    [ -n "$sudo" ] && why=root || why=kernel
else can=yes why=
fi
"""
#: The last line of a read that has told everything.
_WHOLE = "read"
#: Tells what is set, of every bridge: why nothing is known, the files for the boot, the tables.
#: One call for each: of two in one call, nft 1.0.6 finds only one. A table that cannot be read is
#: no table that is gone, unless it is no longer listed.
READ = f"""{CAN}[ -z "$why" ] || echo "why $why"
sha256sum {FILES}/{FILE}*.nft {UNITS}/{UNIT}*.service {UNITS}/*.wants/{UNIT}*.service 2>/dev/null
printf '%s\\n' "$tables" | {{
    while read -r _ family table; do
        case $family.$table in
        inet.{TABLE}*)
            $sudo nft -n -s list table inet "$table" 2>/dev/null </dev/null || {{
                now=$($sudo nft list tables 2>/dev/null </dev/null) || exit 0
                case "$now\n" in *"table inet $table\n"*) exit 0 ;; esac
            }} ;;
        esac
    done
    echo {_WHOLE}
}}
"""

#: Why the rule does not hold, and the next step.
NO_NFT = ("there is no nft on the host", "on the host: apt-get install nftables")
NO_ROOT = (
    "the user there is not root, and sudo wants a password",
    "let this user run nft with sudo without a password",
)
NO_KERNEL = ("nft does not work there", "on the host, as root: nft list tables says why")
REMOTE = (
    "through a remote of Incus nobody can set a rule of the host's firewall",
    "name the host with stt:connection: ssh:USER@HOST, with root or sudo without a password",
)
#: How ``READ`` says it.
_WHY = {"why nft": NO_NFT, "why root": NO_ROOT, "why kernel": NO_KERNEL}


def on_another(member: str, answers: str) -> tuple[str, str]:
    """The same of a domain whose machines are on another member of the cluster."""
    return (
        f"its machines are on {member} of the cluster, and the rule is set on {answers} only",
        f"have these machines on {answers}, or drop by that member's own firewall what its bridge "
        "sends to port 53 of other addresses",
    )


@dataclass(frozen=True)
class Firewall:
    """What is set on a host.

    ``why_not`` says why nothing can be read or set, and the next step; empty if it can.
    ``tables`` are the rules by bridge as nft shows them, ``files`` the digests of files by path.
    """

    why_not: tuple[str, ...] = ()
    tables: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)

    def of(self, bridge: str) -> dict[str, str]:
        """What is set for a bridge: the rule, and each file by its path."""
        names = (f"{FILE}{bridge}.nft", f"{UNIT}{bridge}.service")
        rule = {RULE: self.tables[bridge]} if bridge in self.tables else {}
        files = self.files.items()
        return rule | {path: sum_ for path, sum_ in files if path.rpartition("/")[2] in names}


def why_not(said: str) -> tuple[str, ...]:
    """Why nothing could be done, as a script said after ``CAN``, and the next step."""
    return next((_WHY[line] for line in said.splitlines() if line in _WHY), ())


def parse_firewall(said: str) -> Firewall | None:
    """What ``READ`` has said; None if it did not come to its end."""
    lines = said.splitlines()
    if lines[-1:] != [_WHOLE]:
        return None
    files, tables, name = dict[str, str](), dict[str, list[str]](), ""
    for line in lines:
        digest, _, path = line.partition("  ")
        if found := re.fullmatch(rf"table inet {re.escape(TABLE)}(\S+) {{", line):
            name = found[1]
            tables[name] = []
        elif line == "}":
            name = ""
        elif name:
            tables[name].append(line.strip())
        elif path:
            files[path] = digest
    texts = {each: "\n".join(rules) for each, rules in tables.items()}
    return Firewall(why_not(said), texts, files)


def drift(bridge: str, noted: Mapping[str, str], now: Firewall) -> list[Difference]:
    """Where a bridge has something else than what was set; ``noted`` is empty if nothing was.

    Nothing is known of a host that no longer says anything.
    """
    if now.why_not:
        return []
    if not noted:
        return [missing(RULE)]
    found = now.of(bridge)
    differences: list[Difference] = []
    for name in sorted({*noted, *found}):
        if name == RULE:
            differences += compare_text(name, noted.get(name, ""), found.get(name))
        elif name not in found:
            differences.append(missing(name))
        elif noted.get(name) != found[name]:
            differences.append(Difference(name, "changed", "as it was set"))
    return differences
