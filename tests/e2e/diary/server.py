"""A diary in SQLite. It writes all the time: two rows that belong together, in a transaction."""

import http.server
import json
import os
import sqlite3
import threading
import time

KEY = os.environ["DIARY_KEY"]


def connect() -> sqlite3.Connection:
    connection = sqlite3.connect(os.environ["DIARY"], timeout=30)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    return connection


def write() -> None:
    connection = connect()
    while True:
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
threading.Thread(target=write, daemon=True).start()
http.server.ThreadingHTTPServer(("0.0.0.0", int(os.environ["DIARY_PORT"])), Handler).serve_forever()
