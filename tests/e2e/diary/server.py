"""A diary in SQLite. It writes all the time: two rows that belong together, in a transaction.

And a number into two files, one after the other. A third one stands between their names: who copies
file by file has the two of different moments.
"""

import http.server
import itertools
import json
import os
import sqlite3
import threading
import time
from pathlib import Path

KEY = os.environ["DIARY_KEY"]
PLACE = Path(os.environ["DIARY"]).parent
COUNTS = [PLACE / "a-count", PLACE / "z-count"]
AT_START = [int(path.read_bytes() or 0) if path.exists() else 0 for path in COUNTS]


def connect() -> sqlite3.Connection:
    connection = sqlite3.connect(os.environ["DIARY"], timeout=30)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    return connection


def write() -> None:
    connection = connect()
    files = [os.open(path, os.O_WRONLY | os.O_CREAT) for path in COUNTS]
    for count in itertools.count(max(AT_START) + 1):
        for file in files:
            os.pwrite(file, b"%020d" % count, 0)
        with connection:
            connection.execute("INSERT INTO one (text) VALUES (?)", ("x" * 2000,))
            connection.execute("INSERT INTO other SELECT max(id) FROM one")
        time.sleep(0.002)


class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, status: int, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        connection = connect()
        one = "SELECT (SELECT max(id) FROM one), (SELECT max(id) FROM other)"
        found = {
            "notes": [row[0] for row in connection.execute("SELECT text FROM notes ORDER BY id")],
            "at_start": AT_START,
            "rows": connection.execute(one).fetchone(),
        }
        if self.path == "/check":
            found["check"] = connection.execute("PRAGMA integrity_check").fetchone()[0]
        self.answer(200, found)

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.headers.get("Authorization") != f"Bearer {KEY}":
            self.answer(401, "another key")
            return
        connection = connect()
        with connection:
            connection.execute("INSERT INTO notes (text) VALUES (?)", (text,))
        self.answer(200, "noted")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its own name
        pass


with connect() as first:
    for table in ("notes", "one"):
        first.execute(f"CREATE TABLE IF NOT EXISTS {table} (id INTEGER PRIMARY KEY, text TEXT)")
    first.execute("CREATE TABLE IF NOT EXISTS other (id INTEGER PRIMARY KEY)")
(PLACE / "m-filler").write_bytes(bytes(64_000_000))
threading.Thread(target=write, daemon=True).start()
http.server.ThreadingHTTPServer(("0.0.0.0", int(os.environ["DIARY_PORT"])), Handler).serve_forever()
