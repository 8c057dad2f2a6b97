"""What users of a service notice of a change, in words: roles say it, `make review` tells it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Notice:
    """What users notice of a change of a step; ``restart``: whether a restart is what they notice.

    A service that nobody waits for has ``restart=False``, and so has one that sees new secrets
    without a restart.
    """

    words: str
    restart: bool = True


@dataclass(frozen=True)
class Notices:
    """What the roles say.

    ``steps``: what users notice of a changed service or of its secrets, by ``ROLE/PART``. ``kept``:
    what another value of a secret means that is made once and kept, by the secret's name.
    """

    steps: Mapping[str, Notice] = field(default_factory=dict)
    kept: Mapping[str, str] = field(default_factory=dict)
