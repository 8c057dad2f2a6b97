"""Write everything that is generated from the code: ``python -m roles.document``.

That is what settings, engines and roles say of themselves. Each part stands between two marker
lines of a file, and the rest is written by hand.
"""

from __future__ import annotations

import declaration.interrupt  # noqa: F401  # Ctrl-C ends it with a line
import engines.document
import stack.document
from declaration.generated import Parts, joined, table, write
from roles import ROLES


def parts() -> Parts:
    """Every generated part by its file and its name."""
    rows = ((f"`{role.name}`", role.description) for role in ROLES.values())
    own = {"docs/topology.md": {"roles": table(("role", "brings"), rows)}}
    return joined(stack.document.parts(), engines.document.parts(), own)


def main() -> None:
    """Write the files that are stale, and name them."""
    write(parts())


if __name__ == "__main__":
    main()
