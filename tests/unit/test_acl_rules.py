"""host/objects.py: in which order the rules of an ACL come and go."""

from __future__ import annotations

import json
from typing import Any

import pytest

from host.client import HostError
from host.objects import ACL, Place, RuleChange, apply_object, set_rules

OLD, NEW, KEPT = ({"action": "allow", "source": f"10.0.{n}.0/24"} for n in range(3))
#: Of one who stays, and not as it should be.
OTHER_PORT = {**KEPT, "destination_port": "1"}
BY_HAND = {"action": "allow"}
PLACE = Place("net-a", "default")


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
