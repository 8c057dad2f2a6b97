"""``gpu_policy: exclusive``: a card has one owner, and machines with a card each are none of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from declaration.gpu_devices import may_be_same
from gpu.cards import Card
from gpu.devices import share_card
from tests.unit.values import CARD

OTHER = replace(CARD, pci="0000:41:00.0", drm="1")
AMD = Card("0000:61:00.0", "1002", "7550", "2", "Radeon RX 9070")
FIRST, SECOND = {"pci": "0000:01:00.0"}, {"pci": "0000:41:00.0"}
#: Two devices, whether they may be the same by what they say, and whether they are on the host.
PAIRS: list[tuple[dict[str, str], dict[str, str], bool, bool]] = [
    (FIRST, SECOND, False, False),
    (FIRST, {"pci": "00000000:01:00.0"}, True, True),
    ({}, SECOND, True, True),
    ({}, {"vendorid": "1002"}, True, True),
    ({"vendorid": "10de"}, {"vendorid": "1002"}, False, False),
    ({"id": "0"}, {"id": "1"}, False, False),
    ({"id": "0"}, SECOND, True, False),
    ({"id": "1"}, SECOND, True, True),
    ({"id": "nvidia.com/gpu=0"}, {"id": "1"}, True, True),
    ({"pci": "0000:09:00.0"}, {}, True, False),
    (
        {**FIRST, "gputype": "mig", "mig.uuid": "MIG-A"},
        {**FIRST, "gputype": "mig", "mig.uuid": "b"},
        False,
        False,
    ),
    (
        {**FIRST, "gputype": "mig", "mig.uuid": "MIG-a"},
        {**FIRST, "gputype": "mig", "mig.uuid": "A"},
        True,
        True,
    ),
    ({**FIRST, "gputype": "mig", "mig.uuid": "a"}, FIRST, True, True),
]


@pytest.mark.parametrize(("one", "other", "by_word", "on_host"), PAIRS)
def test_two_devices(
    one: dict[str, Any], other: dict[str, Any], by_word: bool, on_host: bool
) -> None:
    cards = [CARD, OTHER, AMD]
    for a, b in ((one, other), (other, one)):
        assert may_be_same(a, b) is by_word
        assert share_card([a], [b], cards) is on_host
