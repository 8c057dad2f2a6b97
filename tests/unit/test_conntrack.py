"""Which open connections are cut."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from declaration.connection import Connection
from host import root
from host.client import HostError
from host.conntrack import cut, elsewhere
from tests.hanging import hanging


def _commands(home: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A command that only writes down its arguments, in ``said``."""
    for command, body in {name: f'echo "$*" >>{home}/said', "sudo": 'shift; exec "$@"'}.items():
        (home / command).write_text(f"#!/bin/sh\n{body}\n")
        (home / command).chmod(0o755)
    monkeypatch.setenv("PATH", f"{home}:/usr/bin:/bin")


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
    _commands(tmp_path, monkeypatch, "conntrack")
    cut(Connection("local"), "10.120.0.0/24", elsewhere("10.120.0.0/24"))
    said = (tmp_path / "said").read_text().splitlines()
    assert len(said) == 24
    assert all(line.startswith("-D -s 10.120.0.0/24 -d ") for line in said)
    cut(Connection("local"), "10.130.0.0/24", ["10.120.0.1/32"])
    last = (tmp_path / "said").read_text().splitlines()[-1]
    assert last == "-D -s 10.130.0.0/24 -d 10.120.0.1/32"


def test_a_word_stays_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The script is fixed: what it is told is no part of it."""
    _commands(tmp_path, monkeypatch, "conntrack")
    words = f"$(touch {tmp_path}/ran)", f"'; touch {tmp_path}/ran; '"
    cut(Connection("local"), words[0], words[1:])
    assert (tmp_path / "said").read_text() == f"-D -s {words[0]} -d {words[1]}\n"
    assert not (tmp_path / "ran").exists()


def test_what_hangs_on_the_host_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(root, "DEADLINE", 0.2)
    _commands(tmp_path, monkeypatch, "true")
    hanging(tmp_path / "conntrack")
    with pytest.raises(HostError, match=r"10\.1\.1\.0/24 were not cut"):
        cut(Connection("local"), "10.1.1.0/24", ["10.2.2.0/24"])
