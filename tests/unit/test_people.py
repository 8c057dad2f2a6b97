"""docs/scale.md, "How many people a server carries": from measured figures, by one formula."""

from __future__ import annotations

import re

from bench.people import AN_HOUR, BUSY, DICTATION, PEOPLE, SPEEDS, Speed, table
from declaration.source_files import ROOT

SCALE, MEASURED = ((ROOT / "docs" / name).read_text() for name in ("scale.md", "measurements.md"))


def test_the_page_has_the_table_as_it_is_computed() -> None:
    assert "\n".join(table()) in SCALE, "run python -m bench.people"
    text = re.sub(r"\s+", " ", SCALE)
    assert f"{DICTATION} s of speech, {AN_HOUR} times an hour" in text
    assert f"{BUSY:.0%}" in text.replace(" %", "%") and f"{PEOPLE:,} people" in text


def test_the_table_has_each_model_s_speed_and_its_requests_a_minute() -> None:
    head, _, *rows = (line.strip("| ").split(" | ") for line in table())
    columns = [head.index(name) for name in ("RTFx", "dictations a minute", "people")]
    for each, row in zip(SPEEDS, rows, strict=True):
        rtfx, a_minute, people = (float(row[column]) for column in columns)
        assert rtfx == each.rtfx
        # The same load, said twice; both are rounded down.
        assert abs(a_minute - people * AN_HOUR / 60) <= AN_HOUR / 60


def test_each_speed_is_one_that_was_measured_one_window_at_a_time() -> None:
    for each in SPEEDS:
        rows = [line for line in MEASURED.splitlines() if line.startswith(f"| {each.model} | RTFx")]
        assert any(line.startswith(f"| {each.model} | RTFx {each.rtfx:g},") for line in rows), each


def test_the_arithmetic() -> None:
    """A window in 0.9 s: 2,400 of them in 0.6 hours; 30 an hour are 80 people."""
    server = Speed("m", "here", 30 / 0.9, 100)
    assert round(server.takes, 3) == 0.9
    assert server.people == 80
    assert server.a_minute == 40  # 80 people, 30 an hour
    assert server.servers == 14  # 12.5 of them, and one more
    assert Speed("m", "here", 30 / 0.9, 50).takes == 2 * server.takes
