"""End-to-end tests: Pulumi's engine and the real Incus of this machine, in projects of their own.

One stack is shared by every module that does not say otherwise: ``project``. It is built once, and
each test finds it as the first `up` left it. Modules run side by side, each in one process of
pytest-xdist, and all that share the stack in the same one. No two modules have the same names.
"""

from __future__ import annotations

import copy
import fcntl
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e import kernel, memory_pool, places
from tests.e2e.other_incus import OtherIncus
from tests.e2e.places import new_directory
from tests.e2e.project import ROOT, Project, incus, left_of, remove_leftovers, run

#: Modules that take a minute or more, the longest first: started last, one would run by itself.
LONGEST = (
    *("test_webui", "test_speaches", "test_convergence", "test_commands", "test_lifecycle"),
    *("test_load", "test_backup", "test_ollama", "test_cluster", "test_gateway"),
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
    name, subnet = f"stt-e2e-o{number:02}", f"10.213.{100 + number}"
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


@pytest.fixture(scope="session")
def stack(
    tmp_path_factory: pytest.TempPathFactory,
    bystander: Callable[[], list[str]],
    worker_id: str,
) -> Iterator[Project]:
    """The shared stack; nothing of it stays."""
    before, number = bystander(), _process(worker_id)
    names = f"stt-e2e-c{number:02}", f"10.213.{150 + number}"
    made = Project(tmp_path_factory.mktemp("stack"), *names)
    yield made
    made.destroy()
    assert left_of(made.domain) == []
    assert bystander() == before


@pytest.fixture(scope="session")
def up(stack: Project) -> str:
    """The first `up` of the shared stack; what it said."""
    return stack.up()


@pytest.fixture(scope="module")
def engine_stack(stack: Project, up: str) -> Iterator[Project]:
    """The shared stack for a module whose tests each set an engine; the former one is put back."""
    before = dict(stack.settings)
    yield stack
    stack.settings = before
    stack.write()
    stack.up()


FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Tell the fixtures of a test whether it failed."""
    report = yield
    item.stash[FAILED] = item.stash.get(FAILED, False) or report.failed
    return report


@pytest.fixture
def project(stack: Project, up: str, request: pytest.FixtureRequest) -> Iterator[Project]:
    """The shared stack. What a test that failed left otherwise is put back."""
    before = copy.deepcopy((stack.settings, stack.machines))
    yield stack
    if (stack.settings, stack.machines) != before or request.node.stash.get(FAILED, False):
        stack.settings, stack.machines = before
        stack.write()
        stack.up()


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
    ours = [item for item in items if item.get_closest_marker("e2e")]
    sharing = {item.path for item in ours if "stack" in getattr(item, "fixturenames", ())}
    for item in ours:
        group = "stack" if item.path in sharing else item.path.stem
        item.add_marker(pytest.mark.xdist_group(group))
    place = {module: number for number, module in enumerate(LONGEST)}
    items.sort(key=lambda item: (item.path not in sharing, place.get(item.path.stem, len(place))))
