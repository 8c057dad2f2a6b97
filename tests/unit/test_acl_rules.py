"""host/objects.py: in which order the rules of an ACL come and go."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pytest

from declaration.internet import INTERNET
from host import __main__ as program
from host.client import HostError
from host.egress import Egress
from host.objects import ACL, Place, RuleChange, apply_object, set_rules
from host.ways_out import loses_internet

OLD, NEW, KEPT = ({"action": "allow", "source": f"10.0.{n}.0/24"} for n in range(3))
#: Of one who stays, and not as it should be.
OTHER_PORT = {**KEPT, "destination_port": "1"}
BY_HAND = {"action": "allow"}
OPEN = {"action": "allow", "source": "10.0.0.0/24", "destination": ",".join(INTERNET)}
PLACE = Place("net-a", "default")
APPLY = ["apply", "acl", "--project", "default"]


class Incus:
    """An ACL, where there is one."""

    def __init__(self, *ingress: dict[str, str], there: bool = True) -> None:
        self.acl: Any = {"config": {}, "egress": [], "ingress": list(ingress)} if there else None

    def get(self, path: str) -> Any:
        assert path == "/1.0/network-acls/net-a?project=default"
        return self.acl

    def call(self, *words: str, project: str, stdin: str) -> str:
        assert words == ("network", "acl", "edit" if self.acl else "create", "net-a")
        self.acl = json.loads(stdin)
        return ""


def desired(*ingress: dict[str, str]) -> dict[str, Any]:
    return {"description": "", "config": {}, "egress": [], "ingress": list(ingress)}


@pytest.mark.parametrize(
    ("change", "rules"),
    [
        ("add", [KEPT, NEW, OLD, OTHER_PORT, BY_HAND]),
        ("remove", [KEPT, OTHER_PORT]),
        ("exact", [KEPT, NEW]),
    ],
)
def test_rules_come_first_or_go_first(change: RuleChange, rules: list[dict[str, str]]) -> None:
    incus = Incus(OLD, KEPT, OTHER_PORT, BY_HAND)
    done = apply_object(incus, ACL, PLACE, desired(KEPT, NEW), rules=change)  # type: ignore[arg-type]
    assert incus.acl["ingress"] == rules
    assert (done["done"], done["ingress"]) == ("edited", [KEPT, NEW])
    # Only where rules go first has something else to run between.
    assert ("at" in done) == (change == "remove")
    set_rules(incus, PLACE, done)  # type: ignore[arg-type]
    assert incus.acl["ingress"] == [KEPT, NEW]


@pytest.mark.parametrize(("change", "rules"), [("add", [NEW]), ("remove", []), ("exact", [NEW])])
def test_a_new_acl(change: RuleChange, rules: list[dict[str, str]]) -> None:
    incus = Incus(there=False)
    done = apply_object(incus, ACL, PLACE, desired(NEW), rules=change)  # type: ignore[arg-type]
    assert done["done"] == "created" and incus.acl["ingress"] == rules


def test_rules_are_not_written_again_and_an_acl_that_is_gone_is_said() -> None:
    rules = {"egress": [], "ingress": [KEPT]}
    assert set_rules(Incus(KEPT), PLACE, rules) == {"done": "nothing to change"}  # type: ignore[arg-type]
    with pytest.raises(HostError, match="The network ACL net-a is not there"):
        set_rules(Incus(there=False), PLACE, rules)  # type: ignore[arg-type]


def to(*destinations: str, action: str = "allow") -> list[dict[str, str]]:
    return [{"action": action, "destination": each} for each in destinations]


@pytest.mark.parametrize(
    ("before", "after", "lost"),
    [
        ([OPEN], [], True),
        ([OPEN], to("10.1.0.1/32"), True),
        ([OPEN], to("9.9.9.9/32"), True),
        ([OPEN, *to("9.9.9.9")], [OPEN], False),
        ([BY_HAND], [], True),
        ([BY_HAND], [OPEN], False),
        (to("9.9.9.0/24"), [], True),
        (to("9.9.9.9-9.9.9.10", "10.1.0.1"), to("10.1.0.1"), True),
        (to("0.0.0.0/0"), to("10.0.0.0/8"), True),
        (to("@external"), [], True),
        (to("10.0.0.0/8", "192.168.1.1-192.168.1.9"), [], False),
        (to("9.9.9.9/32", action="drop"), [], False),
        (to("9.9.9.9/32"), to("9.9.9.9/32"), False),
        ([], [OPEN], False),
    ],
)
def test_what_loses_the_internet(before: list[Any], after: list[Any], lost: bool) -> None:
    assert loses_internet(before, after) == lost


@pytest.fixture
def incus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Incus:
    """An ACL of a domain that is open; what is cut is said on stdout."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    fake = Incus(KEPT)
    fake.acl["egress"] = [OPEN, OLD]
    monkeypatch.setattr(program, "Client", lambda _: fake)
    monkeypatch.setattr(Egress, "editing", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(Egress, "cut", lambda self: print("cut", self.bridge))
    return fake


def host(monkeypatch: pytest.MonkeyPatch, *words: str, **rules: Any) -> None:
    monkeypatch.setattr("sys.argv", ["host", *words])
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(desired(KEPT) | rules)))
    assert program.main() == 0


def test_who_closes_the_way_to_the_internet_does_so_at_once(
    incus: Incus, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before any step, so none that fails leaves it open; the rest goes at the end."""
    host(monkeypatch, *APPLY, "net-a", egress=[])
    assert incus.acl["egress"] == [OLD]
    cut, said = capsys.readouterr().out.splitlines()
    assert cut == "cut net-a"
    assert json.loads(said) == {"done": "edited", "egress": [], "ingress": [KEPT]}


@pytest.mark.parametrize("verb", ["apply", "close"])
def test_who_stays_open_is_not_cut(
    verb: str, incus: Incus, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = APPLY if verb == "apply" else [verb]
    host(monkeypatch, *words, "net-a", egress=[OPEN])
    assert incus.acl["egress"] == ([OPEN, OLD] if verb == "apply" else [OPEN])
    assert "cut" not in capsys.readouterr().out


def test_connections_are_cut_where_the_last_rule_to_the_internet_goes(
    incus: Incus, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    host(monkeypatch, "close", "net-a", egress=[])
    assert capsys.readouterr().out.splitlines() == ["cut net-a", '{"done": "changed"}']
    host(monkeypatch, "close", "net-a", egress=[])
    assert capsys.readouterr().out.splitlines() == ['{"done": "nothing to change"}']


def test_a_cut_that_failed_is_made_up_for(
    incus: Incus, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The step failed, so the next `up` runs it again: the rules are right by then."""
    incus.acl["egress"] = [OLD]
    host(monkeypatch, "close", "net-a", egress=[OLD])
    assert capsys.readouterr().out.splitlines() == ['{"done": "nothing to change"}']
    monkeypatch.setattr(Egress, "is_to_be_cut", lambda _: True)
    host(monkeypatch, "close", "net-a", egress=[OLD])
    assert capsys.readouterr().out.splitlines() == ["cut net-a", '{"done": "nothing to change"}']
