"""How far the building of an image is, from logs as debootstrap and apt-get write them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from declaration.source_files import ROOT
from tests.server.server import wait

NAMES = [f"package-{number}" for number in range(40)]
HEAD = ["I: Retrieving InRelease ", "I: Retrieving Packages ", "I: Validating Packages "]
FETCHED = [f"I: {verb} {name} 1.0-1" for name in NAMES for verb in ("Retrieving", "Validating")]
CHOSEN = ["I: Chosen extractor for .deb packages: dpkg-deb"]
EXTRACTED = [f"I: Extracting {name}..." for name in NAMES[:20]]
UNPACKED = [f"I: Unpacking {name}..." for name in NAMES]
CONFIGURED = [f"I: Configuring {name}..." for name in NAMES]
BASED = ["I: Base system installed successfully."]
UPDATES = ["4 upgraded, 0 newly installed, 0 to remove and 0 not upgraded."]
UPDATED = [f"{verb} {name} (1.1)" for name in NAMES[:4] for verb in ("Unpacking", "Setting up")]
INSTALLED = [*HEAD, *FETCHED, *CHOSEN, *EXTRACTED, *UNPACKED, *CONFIGURED, *BASED]


def command_line(place: Path) -> bytes:
    try:
        return place.read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def shell(script: str, *words: str, **environment: str) -> str:
    done = subprocess.run(
        ["sh", "-euc", script, "sh", *words],
        cwd=ROOT / "bootstrap",
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("lines", "seconds", "fetched", "said"),
    [
        (HEAD, 2, "", ""),
        ([*HEAD, *FETCHED[:20]], 5, "", "10 packages have come"),
        # Too early to say for how long.
        ([*HEAD, *FETCHED, *CHOSEN, *EXTRACTED], 25, "20", "20 % of 40 packages installed"),
        # 60 of 100 steps in 30 s, and what follows takes half as long again.
        (
            [*HEAD, *FETCHED, *CHOSEN, *EXTRACTED, *UNPACKED],
            50,
            "20",
            "60 % of 40 packages installed, about 45 s left",
        ),
        (INSTALLED, 620, "20", "40 packages are installed, about 5 min left"),
        ([*INSTALLED, *UPDATES, *UPDATED[:4]], 102, "20", "4 updates, about 19 s left"),
        ([*INSTALLED, *UPDATES, *UPDATED], 120, "20", "4 updates, about 4 s left"),
        # When they had come is not known.
        (INSTALLED, 620, "", "40 packages are installed"),
    ],
)
def test_what_is_said(
    lines: list[str], seconds: int, fetched: str, said: str, tmp_path: Path
) -> None:
    log = tmp_path / "image.log"
    log.write_text("".join(f"{line}\n" for line in lines))
    script = '. lib/progress.sh; image_progress "$@"'
    assert shell(script, str(log), str(seconds), fetched).strip() == said


def test_a_long_command_says_how_far_it_is(tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = '. lib/say.sh; LOG=$1; far() { echo ": half of it"; }; long working sleep 1'
    said = shell(script, str(log), STT_EVERY="2").splitlines()
    assert said.count("incus-stt:   … working, 0 s: half of it") >= 1
    # When nobody knows.
    said = shell(script.replace("far()", "near()"), str(log), STT_EVERY="2").splitlines()
    assert "incus-stt:   … working, 0 s" in said


def test_a_long_command_that_never_ends_is_stopped(tmp_path: Path) -> None:
    """With all that it has started."""
    log, pid = tmp_path / "log", tmp_path / "pid"
    body = f"sleep 600 & echo $! >{pid}; wait"
    script = f'. lib/say.sh; LOG=$1; long working sh -c "{body}" || echo "ended with $?"'
    said = shell(script.replace("$!", "\\$!"), str(log), STT_LONG_DEADLINE="5").splitlines()
    assert said == ["ended with 124", "incus-stt:   … working: stopped after 5 s"]
    running = Path(f"/proc/{pid.read_text().strip()}/cmdline")
    # Only its parent has been waited for. A zombie has no command line.
    wait(lambda: not command_line(running))
