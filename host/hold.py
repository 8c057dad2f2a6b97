"""A bridge lets through what it did before, and nothing more, while Incus writes its rules again.

An edit of a network has Incus delete all rules of its bridge and write them anew, chain by chain:
for half a second and more nothing is filtered there, and nothing is masqueraded. A connection that
a machine opens to another network then is tracked with the machine's own address. It never gets an
answer, however often its first packet is sent again. And where no other rule of the host asks for
it, the kernel neither tracks connections nor translates the answers of those that are open, which
are reset (seen with Incus 6.0.4, Linux 6.18).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from declaration.connection import Connection
from host.root import run_as_root

#: What the name of the table begins with, before the bridge's.
HOLD = "incus-stt."
#: Seconds after which the rules have no effect, should nobody remove them.
_SECONDS = 60
#: In a table of its own: a copy of what Incus has for the ACLs of the bridge ``$1``; what opens a
#: connection to another network is dropped, and its sender tries again a second later; and a chain
#: without rules, or the kernel would translate no more addresses where Incus' was the last one. The
#: set has the bridge until the time is over.
#:
#: Incus may still be writing, for somebody who was killed: then the copy that is there stays.
_HOLD = f"""table={HOLD}$1
copy() {{
    $sudo nft list chain inet incus "acl.$1" |
        awk '{{ print }} /ifname/ {{ found = 1 }} END {{ exit !found }}' || return
    for chain in aclin aclout aclfwd; do
        $sudo nft list chain inet incus "$chain.$1" || return
    done
}}
if ! copied=$(copy "$1" 2>/dev/null); then
    for words in add delete add; do
        echo "$words element inet $table held {{ \\"$1\\" timeout {_SECONDS}s }}"
    done | $sudo nft -f - 2>/dev/null && exit
    copied=
fi
{{
    cat <<END
add table inet $table
delete table inet $table
table inet $table {{
    set held {{ type ifname; flags timeout; elements = {{ "$1" timeout {_SECONDS}s }}; }}
    chain outwards {{
        type filter hook forward priority filter;
        iifname @held oifname != "$1" ct state new drop
    }}
    chain translated {{
        type nat hook postrouting priority srcnat;
    }}
}}
END
    printf '%s\\n' "$copied" | awk -v "table=$table" '
        $1 == "table" {{ $3 = table }}
        {{ print }}
        /hook input/ {{ print "iifname != @held accept" }}
        /hook output/ {{ print "oifname != @held accept" }}
        /hook forward/ {{ print "iifname != @held oifname != @held accept" }}'
}} | $sudo nft -f -"""
_LET_GO = f'$sudo nft delete table inet "{HOLD}$1"'


@contextlib.contextmanager
def held(connection: Connection, bridge: str) -> Iterator[None]:
    """Have the rules of a bridge in force meanwhile, whatever Incus does to its own.

    One at a time for each bridge. Where the edit fails or is broken off Incus may go on with it, so
    the hold stays until its time is over. Without root or ``nft`` on the host, through a remote of
    Incus, and on other members of a cluster, nobody can do it. Where Incus uses iptables there are
    no chains to copy.
    """
    run_as_root(connection, _HOLD, bridge)
    yield
    run_as_root(connection, _LET_GO, bridge)
