"""A PostgreSQL server of the tests' own, as a team's database: with a password and TLS."""

from __future__ import annotations

import getpass
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.places import new_directory, note, remove
from tests.e2e.project import run
from tests.ports import free_port

#: The directories with PostgreSQL's programs, as Debian and Ubuntu have them.
PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
#: PostgreSQL refuses to run as root.
USER = "postgres" if os.geteuid() == 0 else getpass.getuser()
#: The role, which owns the database of the same name.
ROLE, PASSWORD = "stt", "a-password-of-the-tests"
#: Seconds that the server has to answer.
_DEADLINE = 120


class PostgreSQL:
    """A server with an empty database, on a free port of localhost."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.data = directory, directory / "data"
        self.certificate = directory / "server.crt"
        self.process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        """The backend's URL for Pulumi; the password is in ``login``."""
        return f"postgres://{ROLE}@localhost:{self.port}/{ROLE}?sslmode=verify-full"

    def login(self, home: Path) -> None:
        """Give a user what the server asks for: the password, and the CA that it is known by."""
        passwords, trusted = home / ".pgpass", home / ".postgresql" / "root.crt"
        passwords.write_text(f"localhost:{self.port}:{ROLE}:{ROLE}:{PASSWORD}\n")
        passwords.chmod(0o600)
        trusted.parent.mkdir()
        trusted.write_text(self.certificate.read_text())

    def _program(self, name: str, *words: str, text: str = "") -> str:
        program = str(PROGRAMS[-1].with_name(name))
        done = run(program, *words, input=text, user=USER, group=USER, cwd=self.directory)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def set_up(self) -> None:
        """Make the server's files, start it, and make role and database."""
        place = ("-D", str(self.data), "--no-sync")
        self._program("initdb", *place, "--auth-local=peer", "--auth-host=scram-sha-256")
        key = self.directory / "server.key"
        subject = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")
        made = ("-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(self.certificate))
        done = run("openssl", "req", "-x509", *made, *subject, user=USER, group=USER)
        assert done.returncode == 0, done.stderr
        self.start()
        self.sql(f"create role {ROLE} login password '{PASSWORD}'", database="postgres")
        self.sql(f"create database {ROLE} owner {ROLE}", database="postgres")

    def start(self) -> None:
        """Start it and wait until it answers."""
        settings = {
            "listen_addresses": "localhost",
            "port": self.port,
            "unix_socket_directories": self.directory,
            "fsync": "off",
            "ssl": "on",
            "ssl_cert_file": self.certificate,
            "ssl_key_file": self.directory / "server.key",
        }
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [PROGRAMS[-1].with_name("postgres"), "-D", self.data, *words],
                user=USER,
                group=USER,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        note(self.directory, self.process)
        ready = ("pg_isready", "--quiet", "--host", str(self.directory), "--port", str(self.port))
        deadline = time.monotonic() + _DEADLINE
        while run(str(PROGRAMS[-1].with_name(ready[0])), *ready[1:]).returncode:
            said = (self.directory / "log").read_text()
            assert self.process.poll() is None and time.monotonic() < deadline, said
            time.sleep(0.05)

    def stop(self) -> None:
        """End it, as its service does."""
        if self.process:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(_DEADLINE)
            self.process = None

    def sql(self, text: str, database: str = ROLE) -> str:
        """What a statement gives, a line for each row; it goes by stdin."""
        place = ("--host", str(self.directory), "--port", str(self.port), "--dbname", database)
        options = ("--no-psqlrc", "--quiet", "--tuples-only", "--no-align")
        return self._program("psql", *options, "--set=ON_ERROR_STOP=1", *place, text=text).strip()

    def rows(self, part: str = "") -> list[str]:
        """What Pulumi keeps there, by name and time; with ``part`` in the row."""
        rows = self.sql("select key, updated_at from pulumi_state order by key").splitlines()
        return [row for row in rows if part in row]


@contextmanager
def postgresql() -> Iterator[PostgreSQL]:
    """A server that is gone afterwards."""
    directory = new_directory()
    if USER == "postgres":
        run("chown", USER, str(directory))
    server = PostgreSQL(directory)
    try:
        server.set_up()
        yield server
    finally:
        server.stop()
        remove(directory)
