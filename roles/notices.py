"""What users notice of changes, as every role says it."""

from __future__ import annotations

from declaration.notice import Notices
from roles import ROLES


def notices() -> Notices:
    """What all roles say, for `make review`, which knows no role itself."""
    every = list(ROLES.values())
    return Notices(
        {step: notice for role in every for step, notice in role.notices.items()},
        {name: words for role in every for name, words in role.kept.items()},
    )
