"""The OpenMP that comes with the pinned CTranslate2 reads what the services set."""

from __future__ import annotations

import os
import subprocess
import sys

from engines.ctranslate2 import OPENMP


def test_its_threads_sleep_while_they_wait() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import ctranslate2"],
        env={**os.environ, **OPENMP, "OMP_DISPLAY_ENV": "true"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr
