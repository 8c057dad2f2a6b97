"""A bridge lets through what it did before, and nothing more, while Incus writes its rules again.

An edit of a network has Incus delete all rules of its bridge and write them anew, chain by chain:
for half a second and more nothing is filtered there, and nothing is masqueraded. A connection that
a machine opens to another network then is tracked with the machine's own address. It never gets an
answer, however often its first packet is sent again (seen with Incus 6.0.4, Linux 6.18).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from declaration.connection import Connection
from host.conntrack import run_as_root

#: Seconds after which the rules have no effect, should nobody remove them.
_SECONDS = 60
#: A copy of what Incus has for the ACLs of the bridge ``$1``, in a table of its own, and what opens
#: a connection to another network dropped: its sender tries again a second later. The set has the
#: bridge until the time is over. Also, the kernel tracks connections only while a rule asks for it.
_HOLD = f"""table=incus-stt.$1
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
}}
END
    for chain in acl aclin aclout aclfwd; do
        $sudo nft list chain inet incus "$chain.$1" 2>/dev/null
    done | awk -v "table=$table" '
        $1 == "table" {{ $3 = table }}
        {{ print }}
        /hook input/ {{ print "iifname != @held accept" }}
        /hook output/ {{ print "oifname != @held accept" }}
        /hook forward/ {{ print "iifname != @held oifname != @held accept" }}'
}} | $sudo nft -f -"""
_LET_GO = '$sudo nft delete table inet "incus-stt.$1"'


@contextlib.contextmanager
def held(connection: Connection, bridge: str) -> Iterator[None]:
    """Have the rules of a bridge in force meanwhile, whatever Incus does to its own.

    One at a time for each bridge. Without root or ``nft`` on the host, through a remote of Incus,
    and on other members of a cluster, nobody can do it.
    """
    run_as_root(connection, _HOLD, bridge)
    try:
        yield
    finally:
        run_as_root(connection, _LET_GO, bridge)
