"""What tests read from a machine, with a client that loses it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.whole import whole

Done = subprocess.CompletedProcess[str]
MACHINE = ("exec", "stt", "--")


@pytest.fixture
def losing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Callable[..., Done]]:
    """Makes a client of this machine that loses the output of so many commands."""
    monkeypatch.setattr("tests.whole._KEPT", f"{tmp_path}/")

    def client(times: int) -> Callable[..., Done]:
        lost = iter(range(times))

        def incus(*words: str) -> Done:
            command = words[words.index("--") + 1 :]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if next(lost, None) is not None:
                done.stdout = ""
            return done

        return incus

    return client


@pytest.mark.parametrize("times", range(3))
def test_what_is_lost_is_asked_for_again_and_nothing_is_done_twice(
    times: int, losing: Callable[[int], Callable[..., Done]], tmp_path: Path
) -> None:
    script = f"echo said; echo >>{tmp_path}/done; printf end; exit 3"
    done = whole(losing(times), *MACHINE, "sh", "-c", script)
    assert (done.stdout, done.returncode) == ("said\nend", 3)
    assert (tmp_path / "done").read_text() == "\n"


def test_a_command_that_did_not_begin_is_no_answer(
    losing: Callable[[int], Callable[..., Done]], tmp_path: Path
) -> None:
    def away(*words: str) -> Done:
        return Done(words, 1, "", "Error: Instance is not running")

    assert whole(away, *MACHINE, "true").returncode == 1
    assert not shutil.which("no-such-program")
    assert whole(losing(0), *MACHINE, "no-such-program").returncode == 127


def test_what_is_always_lost_is_an_error(losing: Callable[[int], Callable[..., Done]]) -> None:
    with pytest.raises(AssertionError, match="has lost it"):
        whole(losing(99), *MACHINE, "true")
