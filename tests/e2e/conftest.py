"""End-to-end tests: Pulumi's engine and the real Incus of this machine, in projects of their own.

Modules run side by side, each in one process of pytest-xdist; those in ``shared_stack`` all in the
same one. No two modules have the same names.
"""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e import kernel, memory_pool, places
from tests.e2e.other_incus import OtherIncus
from tests.e2e.places import new_directory
from tests.e2e.project import ROOT, incus, remove_leftovers, run

#: What takes a minute or more, the longest first: started last, one would run by itself.
LONGEST = (
    *("shared_stack", "test_webui", "test_speaches", "test_convergence", "test_commands"),
    *("test_lifecycle", "test_backup", "test_ollama", "test_cluster", "test_gateway"),
    "test_gateway_tls",
)

#: Held by every process of a run.
_LOCK = Path(tempfile.gettempdir()) / "incus-stt-e2e.lock"


def _process(worker_id: str) -> int:
    """The number of this process of the run."""
    return 0 if worker_id == "master" else int(worker_id.removeprefix("gw"))


def _prepare() -> None:
    """The CLI, Incus, a pool and the image, as `make up` makes them; nothing of an earlier run."""
    for script in (["cli.sh"], ["incus.sh"], ["image.sh", "images:debian/12"]):
        done = run(str(ROOT / "bootstrap" / script[0]), *script[1:])
        assert done.returncode == 0, done.stderr
    places.remove_leftovers()
    remove_leftovers("stt-e2e-")
    memory_pool.make()
    kernel.raise_limit()


@pytest.fixture(scope="session", autouse=True)
def incus_ready(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[None]:
    """A host that is prepared once for all processes of a run; one run at a time."""
    directory = tmp_path_factory.getbasetemp()
    if worker_id != "master":
        directory = directory.parent  # each process has its own in the run's
    with _LOCK.open("w") as lock:
        with (directory / "prepare.lock").open("w") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            prepared = directory / "prepared"
            if prepared.exists():
                fcntl.flock(lock, fcntl.LOCK_SH)
            else:
                # One run at a time waits, so that none gets in while this one gives up LOCK_EX.
                with _LOCK.with_suffix(".queue").open("w") as queue:
                    fcntl.flock(queue, fcntl.LOCK_EX)
                    fcntl.flock(lock, fcntl.LOCK_EX)  # waits for the processes of another run
                    _prepare()
                    prepared.touch()
                    fcntl.flock(lock, fcntl.LOCK_SH)
        yield
        # The last process of the run takes away what all shared; a run that waits does it itself.
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            memory_pool.remove()
            kernel.restore_limit()


@pytest.fixture(scope="session")
def bystander(incus_ready: None, worker_id: str) -> Iterator[Callable[[], list[str]]]:
    """Objects of somebody else, which nothing here may touch; called, it tells how they are."""
    number = _process(worker_id)
    name, subnet = f"stt-e2e-by{number:02}", f"10.213.{100 + number}"
    incus("network", "create", name, f"ipv4.address={subnet}.254/24", "ipv6.address=none")
    incus("project", "create", name)
    disk = "devices: {root: {type: disk, pool: default, path: /}}"
    incus("profile", "edit", "default", project=name, stdin=disk)
    incus("create", "--empty", "guest", project=name)
    incus("storage", "volume", "create", "default", "models", project=name)

    def now() -> list[str]:
        asked = (
            f"/1.0/projects/{name}",
            f"/1.0/networks/{name}",
            f"/1.0/profiles/default?project={name}",
            f"/1.0/instances/guest?project={name}",
            f"/1.0/storage-pools/default/volumes/custom/models?project={name}",
        )
        return [incus("query", path) for path in asked]

    yield now
    incus("delete", "guest", project=name)
    incus("storage", "volume", "delete", "default", "models", project=name)
    incus("project", "delete", name)
    incus("network", "delete", name)


@pytest.fixture
def other() -> Iterator[OtherIncus]:
    """A second Incus daemon, with a pool and the image."""
    daemon = OtherIncus(new_directory())
    try:
        daemon.set_up()
        yield daemon
    finally:
        daemon.remove()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test here is an end-to-end test; what takes longest comes first."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("e2e")
    place = {name: number for number, name in enumerate(LONGEST)}

    def order(item: pytest.Item) -> int:
        return min(place.get(name, len(place)) for name in (item.path.stem, item.path.parent.name))

    items.sort(key=order)
