"""What is said while something long goes on."""

from __future__ import annotations

import platform
import re
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agent import progress
from agent.actions import Download, Run
from agent.kinds.program import Program
from agent.progress import line, on_disk, receiving, time_left


@pytest.mark.parametrize(
    ("came", "total", "speed", "said"),
    [
        (430_000_000, 0, 12e6, "  … pip: 430 MB so far, 12 MB/s"),
        (1_200_000_000, 4_500_000_000, 33e6, "1.2 GB of 4.5 GB (26 %), 33 MB/s, about 2 min left"),
        (4_490_000_000, 4_500_000_000, 10e6, "4.5 GB of 4.5 GB (99 %), 10 MB/s, about 1 s left"),
        (5_000, 0, 0, "  … pip: 0 MB so far, nothing came for 15 s"),
        # More than was expected is no reason for a percentage above it.
        (2_000_000, 1_000_000, 1e6, "2 MB of 1 MB (99 %), 1 MB/s"),
    ],
)
def test_a_line(came: int, total: int, speed: float, said: str) -> None:
    assert line("pip", came, total, speed).endswith(said)


def test_time_is_told_as_people_do() -> None:
    assert [time_left(each) for each in (0.2, 45, 89, 91, 3600)] == [
        *("about 1 s left", "about 45 s left", "about 89 s left"),
        *("about 2 min left", "about 60 min left"),
    ]


def test_what_is_over_soon_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.progress("x", lambda: 1):
        pass
    assert capsys.readouterr().err == ""


def test_the_innermost_speaks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.02)

    def said(name: str) -> str:
        """What comes from now on, until it names this one."""
        capsys.readouterr()
        text, end = "", time.monotonic() + 30
        while name not in text and time.monotonic() < end:
            time.sleep(0.2)
            text += capsys.readouterr().err
        return text

    with progress.progress("outer", lambda: 1):
        with progress.progress("inner", lambda: 2):
            within = said("inner")
        after = said("outer")
    assert "inner" in within and "outer" not in within
    assert "outer" in after and "inner" not in after


#: For a shell: until what has come was told.
UNTIL_TOLD = "until [ -e {} ]; do sleep 0.1; done"


@dataclass
class Told:
    """What is told of something long; ``place`` is there once half of it has come."""

    place: Path
    lines: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        self.lines.append(text)
        if "(50 %)" in text:
            self.place.touch()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Told:
    made = Told(tmp_path / "told")
    monkeypatch.setattr(progress, "EVERY", 0.05)
    monkeypatch.setattr(progress, "say", made.say)
    return made


def test_a_download_tells_how_far_it_is(agent: Any, told: Told) -> None:
    """A stand-in for curl that writes half of 200 MB, waits, and writes the rest."""
    agent.systemd.program(
        "curl",
        "#!/bin/sh\nfor last; do :; done\ncase $last in\n"
        "--head) printf 'Content-Length: 200000000\\r\\n';;\n"
        "*) while [ $1 != --output ]; do shift; done\n"
        f"   head -c 100000000 /dev/zero >$2; sync $2; {UNTIL_TOLD.format(told.place)}\n"
        "   head -c 100000000 /dev/zero >>$2;;\n"
        "esac\n",
        ready=True,
    )
    Download("http://x/model.zst", "/var/cache/model.zst").do(agent.machine)
    assert any("  … model.zst: 100 MB of 200 MB (50 %), " in line for line in told.lines)


def test_bytes_are_counted_from_the_start(agent: Any) -> None:
    """As Linux has it: two lines of titles, and received bytes first."""
    table = agent.path("/proc/net/dev")
    table.parent.mkdir(parents=True)
    head = "Inter-|   Receive\n face |bytes    packets\n"
    table.write_text(f"{head}    lo: 900 1 0 0\n  eth0: 1000 9 0 0\n")
    came = receiving(agent.machine)
    assert came() == 0
    table.write_text(f"{head}    lo: 999 1 0 0\n  eth0: 5000 9 0 0\n")
    assert came() == 4000


def test_packages_tell_the_time_that_is_left(
    agent: Any, told: Told, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of 200 MB half has come, and the rest takes a while."""
    table, place = agent.path("/proc/net/dev"), agent.path("/opt/incus-stt/tool")
    table.parent.mkdir(parents=True)
    table.write_text("\n\n  eth0: 1000 9 0 0\n")
    until_told = UNTIL_TOLD.format(told.place)
    come = Run(["sh", "-c", f"printf '\\n\\n  eth0: 100001000 9\\n' >{table}; {until_told}"])
    here = f"{sys.version_info[0]}.{sys.version_info[1]} {platform.machine()}"
    sizes = {here: 200_000_000, "2.7 vax": 1}
    make = Run(["mkdir", "-p", str(place)])
    agent.apply(
        "stt/program", Program("/opt/incus-stt/tool", "tool", [make, come], downloads=sizes)
    )
    said = capsys.readouterr().err
    assert said.startswith("installing tool: packages of 200 MB\n")
    half = r"… tool, received: 100 MB of 200 MB \(50 %\), .*/s, about \d+ s left"
    assert re.search(half, "\n".join(told.lines))
    # Where the lock does not know this Python, it is as without.
    agent.apply(
        "stt/other",
        Program(
            "/opt/b", "b", [Run(["mkdir", str(agent.path("/opt/b"))])], downloads={"2.7 vax": 1}
        ),
    )
    assert capsys.readouterr().err.startswith("installing b\n")


def test_what_is_reserved_and_not_written_does_not_count(tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as file:
        file.truncate(10**9)
    (tmp_path / "b").write_bytes(b"x" * 50_000)
    assert 50_000 <= on_disk(tmp_path) < 10**6
    assert on_disk(tmp_path / "b") >= 50_000 and on_disk(tmp_path / "nothing") == 0
