"""A second Incus daemon, which the tests may kill, fill and cut off as they like."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from tests.e2e.places import note, remove
from tests.e2e.project import incus, run

DAEMONS = ("/usr/libexec/incus/incusd", "/opt/incus/bin/incusd", "/usr/lib/incus/incusd")
IMAGE = "incus-stt/images/debian/12"


def find_daemon() -> str:
    """The program that is Incus' daemon."""
    return next(path for path in DAEMONS if Path(path).exists())


def give_image(directory: Path, environment: dict[str, str]) -> None:
    """Give a daemon the image that the host's has; ``directory`` has room for it meanwhile."""
    image = directory / "image"
    image.mkdir()
    incus("image", "export", IMAGE, str(image / "x"))
    parts = sorted(str(path) for path in image.iterdir())
    incus("image", "import", *parts, "--alias", IMAGE, **environment)
    shutil.rmtree(image)


def add_remote(
    remote: str, address: str, configuration: Path, daemon: dict[str, str]
) -> dict[str, str]:
    """Make a daemon a remote of a client that has its configuration in a directory of its own.

    What that client needs in its environment; ``daemon`` is what reaches the daemon's socket.
    """
    token = incus("config", "trust", "add", remote, "-q", **daemon).strip()
    configuration.mkdir(exist_ok=True)
    environment = {"INCUS_CONF": str(configuration)}
    url = f"https://{address}"
    incus("remote", "add", remote, url, "--accept-certificate", "--token", token, **environment)
    return environment


class OtherIncus:
    """Its own directory, storage pool and image; the host's daemon is not touched."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = {"INCUS_DIR": str(directory)}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the daemon and wait until it answers."""
        log = (self.directory / "daemon.log").open("ab")
        self.process = subprocess.Popen(
            [find_daemon(), "--group", "root"],
            env={**os.environ, **self.environment},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        note(self.directory, self.process)
        incus("admin", "waitready", "--timeout=300", **self.environment)

    def kill(self) -> None:
        """End the daemon at once; its containers go on."""
        assert self.process
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def set_up(self) -> None:
        """A pool, and the image of the host's daemon."""
        self.start()
        incus("storage", "create", "default", "dir", **self.environment)
        give_image(self.directory, self.environment)

    def serve(self, remote: str, address: str, configuration: Path) -> dict[str, str]:
        """``add_remote``, at an address that no module beside this one has."""
        incus("config", "set", "core.https_address", address, **self.environment)
        return add_remote(remote, address, configuration, self.environment)

    def remove(self) -> None:
        """Stop it with all that it runs, and remove what it had."""
        if self.process and self.process.poll() is None:
            stop = ("incus", "admin", "shutdown", "--timeout=20")
            run(*stop, env={**os.environ, **self.environment})
            for _ in range(60):
                if self.process.poll() is not None:
                    break
                time.sleep(0.5)
            self.process.kill()
            self.process.wait()
        remove(self.directory)
