"""Before Open WebUI starts: what the stack configuration sets is taken out of its database.

Open WebUI notes every setting in its database at the first start and prefers the note ever after;
where there is none it reads the environment. All other notes stay as an administrator left them.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path


def forget(database: Path, keys: list[str]) -> int:
    """Delete the notes of ``keys``; how many there were. A database that is not there has none.

    Raises:
        sqlite3.Error: the database cannot be read or written.
    """
    if not database.exists():
        return 0
    with closing(sqlite3.connect(database, timeout=30)) as connection, connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE name = 'config'")
        if not tables.fetchall():
            return 0
        marks = ", ".join("?" * len(keys))
        return connection.execute(f"DELETE FROM config WHERE key IN ({marks})", keys).rowcount  # noqa: S608  # only marks


if __name__ == "__main__":
    forget(Path(os.environ["DATA_DIR"], "webui.db"), sys.argv[1:])
