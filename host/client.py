"""The ``incus`` client where it runs: here, with a remote, or over SSH."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from declaration.connection import Connection
from host import inotify

#: One connection for all commands, kept for a minute; never a question, so that nothing hangs.
SSH = (
    "ssh",
    *("-o", "BatchMode=yes"),
    *("-o", "ConnectTimeout=15"),
    *("-o", "ControlMaster=auto"),
    *("-o", "ControlPath=~/.ssh/incus-stt-%C"),
    *("-o", "ControlPersist=60"),
)


class HostError(Exception):
    """The host did not do what it should; ``user_message`` says why and what to do."""

    def __init__(self, user_message: str) -> None:
        self.user_message = user_message
        super().__init__(user_message)


def _explain(said: str) -> str:
    """What Incus said, and for a cluster that is not whole, or a full kernel, what to do."""
    if "inotify" in said and "Too many open files" in said:
        return f"{said}\n{inotify.LIMIT} of its kernel is used up. On the host: {inotify.RAISE}"
    if not (peer := _PEER.search(said)):
        return said
    return (
        f"{said}\nIncus changes a network only while every member of its cluster answers, and "
        f"{peer[1]} does not (incus cluster list). Bring it back, or take it out of the cluster "
        "for good: incus cluster remove --force NAME. Then run up again."
    )


def user_cache() -> Path:
    """What this program keeps for the user, for all clones."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home, "incus-stt")


def shell(connection: Connection) -> list[str]:
    """What runs a shell command, given as one more argument, where ``incus`` runs."""
    if connection.kind == "ssh":
        return [*SSH, "--", connection.target]
    return ["/bin/sh", "-c"]


def remote_variable(connection: Connection) -> str:
    """What stands before a call of the client in shell text; empty, or ends with a space."""
    return f"INCUS_REMOTE={shlex.quote(connection.target)} " if connection.kind == "incus" else ""


def incus_words(connection: Connection, words: Sequence[str], project: str = "") -> str:
    """A call of the client as shell text."""
    within = ["--project", project] if project else []
    return f"{remote_variable(connection)}{shlex.join(['incus', *within, *words])}"


#: What Incus 6.0 says where something else is going on at the same moment: another bridge of the
#: host goes while it looks through all of them for what is attached to this one; a container that
#: it deletes has just been stopped, by the same command; a volume is given to two containers;
#: another ACL goes while it looks who has this one; another bridge's rules are written again.
_RACES = (
    "Failed to delete bridge children interfaces",
    "A matching non-reusable operation has now succeeded",
    "Idmaps of container and storage volume are not identical",
    "Failed getting ACL usage: Network ACL not found",
    "Failed to run: nft -f -",
)
#: What Incus says where another member of its cluster would have to take part, and does not answer.
_PEER = re.compile(r"peer node (\S+?)(?::\d+)? is down")
#: How often a command is given again then, and after how many seconds.
_AGAIN, _PAUSE = 2, 1.0


def past_races(
    run: Callable[[], subprocess.CompletedProcess[str]],
) -> subprocess.CompletedProcess[str]:
    """The end of a command of the client, given again where only the moment was wrong."""
    for _ in range(_AGAIN):
        done = run()
        if not done.returncode or not any(each in done.stderr for each in _RACES):
            return done
        time.sleep(_PAUSE)
    return run()


@dataclass(frozen=True)
class Client:
    """The client of a connection."""

    connection: Connection

    def run(
        self, *words: str, project: str = "", stdin: str = "", deadline: float = 600
    ) -> subprocess.CompletedProcess[str]:
        """Run ``incus WORDS`` to its end, whatever that is; again where only the moment was wrong.

        Raises:
            HostError: there is no client, or it took more than ``deadline`` s.
        """
        return past_races(lambda: self._run(words, project, stdin, deadline))

    def _run(
        self, words: Sequence[str], project: str, stdin: str, deadline: float
    ) -> subprocess.CompletedProcess[str]:
        environment, argv = dict(os.environ), ["incus"]
        if self.connection.kind == "incus":
            environment["INCUS_REMOTE"] = self.connection.target
        argv += ["--project", project] if project else []
        argv += words
        if self.connection.kind == "ssh":
            argv = [*shell(self.connection), shlex.join(argv)]
        try:
            return subprocess.run(  # noqa: S603  # the operator's own host
                argv,
                input=stdin,
                capture_output=True,
                text=True,
                env=environment,
                timeout=deadline,
                check=False,
            )
        except FileNotFoundError:
            raise HostError(
                f"There is no {argv[0]} client on this machine. `make up` installs Incus."
            ) from None
        except subprocess.TimeoutExpired:
            said = " ".join(words[:3])
            raise HostError(f"incus {said} did not finish within {deadline:.0f} s.") from None

    def call(self, *words: str, project: str = "", stdin: str = "", deadline: float = 600) -> str:
        """What ``incus WORDS`` prints.

        Raises:
            HostError: it failed.
        """
        done = self.run(*words, project=project, stdin=stdin, deadline=deadline)
        if done.returncode:
            raise HostError(_explain(done.stderr.strip()) or f"incus {' '.join(words[:3])} failed")
        return done.stdout

    def get(self, path: str, deadline: float = 600) -> Any:
        """An object of Incus' API; None if there is none.

        Raises:
            HostError: the client failed otherwise: no daemon, no permission, no answer in time.
        """
        done = self.run("query", path, deadline=deadline)
        if done.returncode == 0:
            return json.loads(done.stdout)
        if "not found" in done.stderr.lower() or "doesn't exist" in done.stderr:
            return None
        raise HostError(done.stderr.strip())
