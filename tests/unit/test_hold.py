"""What a bridge lets through while Incus writes its rules again.

What that does to packets is seen in ``tests/e2e/test_environments.py``.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import pytest

from declaration.connection import Connection
from host import root
from host.hold import held
from tests.hanging import hanging

#: Notes what it gets, and has the chains of a bridge as Incus 6.0 makes them.
NFT = """#!/bin/sh
cd "$(dirname "$0")"
case "$*" in
"-f -")
    cat >told
    [ -e table ] || ! grep -q '^add element' told || exit 1
    cat told >>said && touch table ;;
"list chain inet incus "*.net-x)
    case "$5" in
    acl.*) rules="ct state established,related accept$(cat more 2>/dev/null)" ;;
    aclin.*) rules='type filter hook input priority filter; policy accept;' ;;
    aclout.*) rules='type filter hook output priority filter; policy accept;' ;;
    aclfwd.*) rules='type filter hook forward priority filter; policy accept;' ;;
    esac
    printf 'table inet incus {\\n\\tchain %s {\\n\\t\\t%s\\n\\t}\\n}\\n' "$5" "$rules" ;;
"list "*) exit 1 ;;
*) echo "$*" >>said; rm table ;;
esac
"""
OUTWARDS = """add table inet incus-stt.{bridge}
delete table inet incus-stt.{bridge}
table inet incus-stt.{bridge} {{
    set held {{ type ifname; flags timeout; elements = {{ "{bridge}" timeout 60s }}; }}
    chain outwards {{
        type filter hook forward priority filter;
        iifname @held oifname != "{bridge}" ct state new drop
    }}
    chain translated {{
        type nat hook postrouting priority srcnat;
    }}
}}
"""
AGAIN = "".join(
    f'{word} element inet incus-stt.net-x held {{ "net-x" timeout 60s }}\n'
    for word in ("add", "delete", "add")
)
CHAIN = """table inet incus-stt.net-x {{
	chain {}.net-x {{
		{}
	}}
}}
"""
HOOK = "type filter hook {} priority filter; policy accept;\n{} accept"
RULES = {
    "acl": 'ct state established,related accept\niifname "net-x" drop',
    "aclin": HOOK.format("input", "iifname != @held"),
    "aclout": HOOK.format("output", "oifname != @held"),
    "aclfwd": HOOK.format("forward", "iifname != @held oifname != @held"),
}
COPY = "".join(CHAIN.format(chain, rules) for chain, rules in RULES.items())


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What ``nft`` was told."""
    for name, text in {"nft": NFT, "sudo": '#!/bin/sh\nshift\nexec "$@"\n'}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (tmp_path / "more").write_text('\niifname "net-x" drop')
    return tmp_path / "said"


def test_the_rules_are_in_force_meanwhile(said: Path) -> None:
    with held(Connection("local"), "net-x"):
        first = said.read_text()
        assert first == OUTWARDS.format(bridge="net-x") + COPY
    assert said.read_text() == f"{first}delete table inet incus-stt.net-x\n"


def test_who_was_killed_leaves_them_to_the_next_one(said: Path, tmp_path: Path) -> None:
    """Incus may still be writing its own: these are no rules to copy."""
    with suppress(ZeroDivisionError), held(Connection("local"), "net-x"):
        first = said.read_text()
        raise ZeroDivisionError
    assert said.read_text() == first
    (tmp_path / "more").unlink()
    with held(Connection("local"), "net-x"):
        assert said.read_text() == first + AGAIN
    with held(Connection("local"), "net-x"):  # of this one nothing was held before
        assert said.read_text().rstrip().endswith(OUTWARDS.format(bridge="net-x").rstrip())


def test_a_bridge_without_rules(said: Path) -> None:
    """It is new, or Incus has another firewall."""
    with held(Connection("local"), "net-y"):
        assert said.read_text().strip() == OUTWARDS.format(bridge="net-y").strip()


def test_what_is_late_does_nothing_afterwards(
    said: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(root, "DEADLINE", 0.2)
    (tmp_path / "nft").write_text(NFT.replace("case", "sleep 0.3\ncase", 1))
    with held(Connection("local"), "net-y"):
        time.sleep(2)
        assert not said.exists()


def test_what_nobody_can_do_is_left(
    said: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held(Connection("incus", "lab"), "net-x"):
        pass
    assert not said.exists(), "a remote's packets do not come here"
    monkeypatch.setattr(root, "DEADLINE", 0.2)
    hanging(tmp_path / "nft")
    with held(Connection("local"), "net-x"):
        pass
