"""Seeds of what tests do at random: other ones in each run, the same in all its processes.

``tests/conftest.py`` imports this, so that the run's first process chooses them; its workers get
its environment. A variable that is set already repeats a run.
"""

from __future__ import annotations

import os
import random


def _chosen(name: str) -> int:
    given = os.environ.get(name) or str(random.SystemRandom().randrange(1_000_000))
    os.environ[name] = given
    return int(given)


#: Which faults there are, and when.
FAULT_SEED = _chosen("STT_FAULT_SEED")
#: Which requests are made up.
FUZZ_SEED = _chosen("STT_FUZZ_SEED")
#: What repeats them, for who reads the run's output.
LINE = f"seeds: STT_FAULT_SEED={FAULT_SEED} STT_FUZZ_SEED={FUZZ_SEED}"
