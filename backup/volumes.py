"""Storage volumes: a snapshot of several at one moment, out as files, and back.

What is written to meanwhile is saved as after a power cut, which databases are made for: SQLite's
log is in the same snapshot. Incus copies a volume of the pool driver ``dir`` file by file, so the
machines that use a volume with data are paused until the snapshots are there. They lose nothing:
requests wait. On ZFS, Btrfs, Ceph and LVM that takes about a second.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from declaration.connection import Connection
from host.client import Client, HostError, incus_words, shell
from host.objects import VOLUME, Place, owner_of, split_owner
from operations.host import OperationError, on_host
from roles import ROLES
from stack.declare import Declaration

#: The name of the snapshot, and what a copy of it adds to the volume's name.
SNAPSHOT, COPY = "incus-stt-backup", "incus-stt-backup"
#: Seconds that snapshots, and that a volume's way out or in, may take.
_SNAPSHOT_DEADLINE, _DEADLINE = 3600, 12 * 3600


@dataclass(frozen=True)
class Volume:
    """A storage volume of a stack; ``data``: what it holds cannot be fetched again."""

    domain: str
    pool: str
    name: str
    data: bool

    @property
    def place(self) -> Place:
        """Where Incus has it."""
        return Place(self.name, self.domain, self.pool)

    @property
    def full_name(self) -> str:
        """With its project."""
        return f"{self.domain}/{self.name}"


def volumes_of(declaration: Declaration) -> list[Volume]:
    """Every volume of a stack's machines that its roles declare, without mere caches."""
    found: dict[tuple[str, str], bool] = {}
    for machine in declaration.topology.machines:
        for role in machine.roles:
            for name in ROLES[role].volumes:
                place = machine.domain, name
                found[place] = found.get(place, False) or name in ROLES[role].data
    pool = declaration.settings.pool
    return [Volume(domain, pool, name, data) for (domain, name), data in sorted(found.items())]


def stack_of(client: Client, volume: Volume) -> str | None:
    """The id of the stack that owns a volume, empty without one; None if there is no volume.

    Raises:
        OperationError: the host does not answer.
    """
    try:
        found = client.get(volume.place.path(VOLUME))
    except HostError as error:
        raise OperationError(error.user_message) from None
    return None if found is None else split_owner(owner_of(found))[2]


def _users(client: Client, volumes: Sequence[Volume]) -> list[tuple[str, str]]:
    """Project and name of the running machines that have a volume with data."""
    found: set[tuple[str, str]] = set()
    for volume in volumes:
        state = client.get(volume.place.path(VOLUME)) if volume.data else None
        for path in (state or {}).get("used_by") or []:
            if not path.startswith("/1.0/instances/"):
                continue
            name = path.removeprefix("/1.0/instances/").partition("?")[0]
            machine = client.get(f"/1.0/instances/{name}?project={volume.domain}") or {}
            if machine.get("status") == "Running":
                found.add((volume.domain, name))
    return sorted(found)


def _script(connection: Connection, volumes: Sequence[Volume], users: list[tuple[str, str]]) -> str:
    """Makes the snapshots, and prints how long the machines were paused, in seconds.

    However it ends, they go on: only a SIGKILL would leave them paused.
    """

    def call(project: str, *words: str) -> str:
        return f"{incus_words(connection, words, project)} </dev/null >/dev/null"

    resume = [f"{call(project, 'resume', name)} || :" for project, name in users]
    create = ["storage", "volume", "snapshot", "create"]
    return "\n".join(
        [
            "set -eu",
            "trap 'exit 1' HUP INT TERM",
            *(["resume() {", *resume, "}", "trap resume EXIT"] if users else []),
            "began=$(date +%s%N)",
            *(call(project, "pause", name) for project, name in users),
            *(
                call(each.domain, *create, each.pool, each.name, SNAPSHOT, "--reuse", "--no-expiry")
                for each in volumes
            ),
            *(["trap - EXIT", "resume"] if users else []),
            'echo "$(($(date +%s%N) - began))"',
        ]
    )


@contextmanager
def snapshots(connection: Connection, volumes: Sequence[Volume]) -> Iterator[float]:
    """Snapshots of volumes at one moment; yields for how many seconds machines were paused.

    Raises:
        OperationError: Incus refuses, or a volume is not there.
    """
    client = Client(connection)
    paused: list[tuple[str, str]] = []
    try:
        paused = users = _users(client, volumes)
        said = on_host(connection, _script(connection, volumes, users), _SNAPSHOT_DEADLINE)
        paused = []
        yield int(said.split()[-1]) / 1e9 if users else 0.0
    except HostError as error:
        raise OperationError(error.user_message) from None
    finally:
        for project, name in paused:  # after Ctrl-C the script had no time for it
            client.run("resume", name, project=project)
        for each in volumes:
            words = ("storage", "volume", "snapshot", "delete", each.pool, each.name, SNAPSHOT)
            client.run(*words, project=each.domain)


def _copy_name(volume: Volume) -> str:
    return f"{volume.name}-{COPY}"


def export(connection: Connection, volume: Volume, target: Path) -> None:
    """Write the volume's snapshot to a file, in Incus' own format for backups.

    Incus exports volumes, and no snapshots: a copy stands in for it.

    Raises:
        OperationError: Incus refuses, or there is no room.
    """
    client, copy = Client(connection), _copy_name(volume)
    at, to = f"{volume.pool}/{volume.name}/{SNAPSHOT}", f"{volume.pool}/{copy}"
    delete = ("storage", "volume", "delete", volume.pool, copy)
    client.run(*delete, project=volume.domain)  # of a run that was cut off
    try:
        words = ("storage", "volume", "copy", at, to)
        client.call(*words, project=volume.domain, deadline=_DEADLINE)
        words = ("storage", "volume", "export", volume.pool, copy)
        call = incus_words(connection, words, volume.domain)
        script = (
            "set -eu; work=$(mktemp -d -p /var/tmp incus-stt-backup-XXXXXX); "
            "trap 'rm -rf \"$work\"' EXIT; "
            f'{call} "$work/volume" --volume-only --quiet </dev/null >/dev/null; cat "$work/volume"'
        )
        with target.open("wb") as file:
            _stream(connection, script, stdout=file)
    except HostError as error:
        raise OperationError(f"volume {volume.full_name}: {error.user_message}") from None
    finally:
        client.run(*delete, project=volume.domain)


def bring(connection: Connection, volume: Volume, source: Path) -> None:
    """Make a volume from a file that ``export`` has written.

    Raises:
        OperationError: Incus refuses, or there is no room.
    """
    words = ("storage", "volume", "import", volume.pool, "/dev/stdin", volume.name, "--quiet")
    with source.open("rb") as file:
        _stream(connection, incus_words(connection, words, volume.domain), stdin=file)


def _stream(
    connection: Connection,
    script: str,
    stdin: IO[bytes] | None = None,
    stdout: IO[bytes] | None = None,
) -> None:
    """Run a script where ``incus`` runs, with bytes on its way in or out."""
    try:
        done = subprocess.run(  # noqa: S603  # the operator's own host
            [*shell(connection), script],
            stdin=stdin or subprocess.DEVNULL,
            stdout=stdout or subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=_DEADLINE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise OperationError(f"stt:connection is {connection}: {error}") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        raise OperationError(f"stt:connection is {connection}: {said[-1]}")


def removal(connection: Connection, volume: Volume) -> str:
    """The command that deletes a volume, for a message."""
    words = ["storage", "volume", "delete", volume.pool, volume.name]
    return incus_words(connection, words, volume.domain)
