"""Where something differs from its desired state, field by field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from agent.difference import compare_object, compare_text

INSTANCE = "^(volatile|image)[.]"


def texts(
    wanted: Mapping[str, Any], found: Mapping[str, Any], computed: str = INSTANCE
) -> list[str]:
    return [str(each) for each in compare_object(wanted, found, computed)]


def test_what_incus_fills_in_is_not_a_difference() -> None:
    found = {"config": {"a": "1", "volatile.uuid": "x", "image.os": "Debian"}, "status": "Running"}
    assert texts({"config": {"a": "1"}}, found) == []


def test_what_a_pool_gives_a_volume_is_not_a_difference() -> None:
    assert texts({"config": {"a": "1"}}, {"config": {"a": "1", "size": "9GiB"}}, ".") == []
    assert texts({"config": {"a": "1"}}, {"config": {"size": "9GiB"}}, ".") == [
        "config.a: (none) -> 1"
    ]


def test_every_field_is_named_with_what_it_is_and_should_be() -> None:
    wanted = {
        "description": "",
        "profiles": ["default"],
        "config": {"limits.cpu": "2"},
        "devices": {"eth0": {"type": "nic", "name": "eth0"}, "gpu": {"type": "gpu"}},
    }
    found = {
        "description": "mine",
        "profiles": ["default", "gpu"],
        "config": {"limits.memory": "1GiB"},
        "devices": {"eth0": {"type": "nic", "name": "eth1"}, "odd": {"type": "none"}},
    }
    assert texts(wanted, found) == [
        "config.limits.cpu: (none) -> 2",
        "config.limits.memory: 1GiB -> (none)",
        "description: mine -> (none)",
        "devices.eth0.name: eth1 -> eth0",
        "devices.gpu: (none) -> {type: gpu}",
        "devices.odd: {type: none} -> (none)",
        "profiles: [default, gpu] -> [default]",
    ]


@pytest.mark.parametrize("wanted", [True, 2, 1.5, "x"])
def test_texts_and_values_are_the_same(wanted: object) -> None:
    assert texts({"config": {"k": wanted}}, {"config": {"k": str(wanted)}}) == []


def test_values_that_may_be_secret_are_not_shown() -> None:
    for key in ("environment.API_KEY", "user.password", "environment.HF_TOKEN"):
        (line,) = texts({"config": {}}, {"config": {key: "hush"}})
        assert "hush" not in line and key in line
    (other,) = compare_text("f", "a\nKEY=hush\n", "a\nKEY=quiet\n")
    assert "hush" not in str(other) and "quiet" not in str(other)


def test_texts_differ_by_their_lines() -> None:
    assert [str(d) for d in compare_text("f", "a\nb\nc\n", "a\nx\nc\nd\n")] == [
        "f line: x -> b",
        "f line: d -> (no such line)",
    ]
    assert [str(d) for d in compare_text("f", "a\nb\n", None)] == ["f: not there -> there"]
    assert [str(d) for d in compare_text("f", "a\nb\n", "a\nb")] == [
        "f: other line ends -> as written"
    ]
    assert compare_text("f", "a\n", "a\n") == []
