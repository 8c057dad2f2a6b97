"""Write the table of roles in docs/topology.md from the roles: ``python -m roles.document``."""

from __future__ import annotations

import declaration.interrupt  # noqa: F401  # Ctrl-C ends it with a line
from declaration.generated import table, write
from roles import ROLES


def blocks() -> dict[str, dict[str, str]]:
    """Every generated part by its page and its name."""
    rows = ((f"`{role.name}`", role.description) for role in ROLES.values())
    return {"topology.md": {"roles": table(("role", "brings"), rows)}}


def main() -> None:
    """Write the pages that are stale, and name them."""
    write(blocks())


if __name__ == "__main__":
    main()
