"""What clients of the STT service notice of its restart, in words."""

from __future__ import annotations

import json
from collections.abc import Sequence

from engines import ENGINES


def last_restart(said: object) -> float | None:
    """The seconds of a service's last start, as its step has said them; None if it has not."""
    try:
        return float(json.loads(str(said).strip().splitlines()[-1])["took"]["restart"])
    except (ValueError, KeyError, TypeError, IndexError):
        return None


def restart_words(engines: Sequence[str], seconds: float | None) -> str:
    """What becomes of requests while the STT service restarts, and for how long: a sentence.

    ``engines`` are those before and after. ``seconds``: what the last start of the engine that
    stays took on its own machine; None: it is another engine, or nobody knows here.
    """
    known = [ENGINES.get(name) for name in engines]
    last = known[-1]
    if seconds is not None:
        how_long = f"{seconds:.1f} s the last time"
    else:
        how_long = (last.restart if last else "") or "how long is not known"
    if all(each and each.holds_port for each in known):
        return f"the STT service restarts: requests wait ({how_long}), and none is refused"
    return f"the STT service restarts: requests are refused meanwhile ({how_long})"
