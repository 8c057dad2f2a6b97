"""Which open connections are cut."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from declaration.connection import Connection
from host.conntrack import cut, elsewhere


def test_elsewhere_is_all_but_the_network() -> None:
    networks = [IPv4Network(each) for each in elsewhere("10.120.0.0/24")]

    def there(address: str) -> bool:
        return any(IPv4Address(address) in each for each in networks)

    assert not there("10.120.0.0") and not there("10.120.0.1") and not there("10.120.0.255")
    assert all(map(there, ("0.0.0.1", "10.119.255.255", "10.120.1.0", "255.255.255.255")))


def test_connections_within_the_network_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody waits for an answer there, which would be stopped at the bridge."""
    for name, body in {"conntrack": f"echo $* >>{tmp_path}/said", "sudo": "shift; exec $*"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    cut(Connection("local"), "10.120.0.0/24", elsewhere("10.120.0.0/24"))
    said = (tmp_path / "said").read_text().splitlines()
    assert len(said) == 24
    assert all(line.startswith("-D -s 10.120.0.0/24 -d ") for line in said)
    cut(Connection("local"), "10.130.0.0/24", ["10.120.0.1/32"])
    last = (tmp_path / "said").read_text().splitlines()[-1]
    assert last == "-D -s 10.130.0.0/24 -d 10.120.0.1/32"
