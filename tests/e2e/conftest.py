"""End-to-end tests: Pulumi's engine and the real Incus of this machine, in projects of their own.

One stack is shared by every module that does not say otherwise: ``project``. It is built once, and
each test finds it as the first `up` left it.
"""

from __future__ import annotations

import copy
import fcntl
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from tests.e2e import places
from tests.e2e.project import ROOT, Project, incus, left_of, remove_leftovers, run

#: A name and addresses that nothing else on a host is likely to have.
DOMAIN, SUBNET = "stt-e2e-c", "10.213.42"
BYSTANDER = "stt-e2e-other"


@pytest.fixture(scope="session", autouse=True)
def incus_ready() -> Iterator[None]:
    """The CLI, Incus, a pool and the image, as `make up` makes them ready; one run at a time."""
    with Path(tempfile.gettempdir(), "incus-stt-e2e.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for script in (["cli.sh"], ["incus.sh"], ["image.sh", "images:debian/12"]):
            done = run(str(ROOT / "bootstrap" / script[0]), *script[1:])
            assert done.returncode == 0, done.stderr
        places.remove_leftovers()
        remove_leftovers("stt-e2e-")
        yield


@pytest.fixture(scope="session")
def bystander(incus_ready: None) -> Iterator[Callable[[], list[str]]]:
    """Objects of somebody else, which nothing here may touch; called, it tells how they are."""
    incus("network", "create", BYSTANDER, "ipv4.address=10.213.40.254/24", "ipv6.address=none")
    incus("project", "create", BYSTANDER)
    disk = "devices: {root: {type: disk, pool: default, path: /}}"
    incus("profile", "edit", "default", project=BYSTANDER, stdin=disk)
    incus("create", "--empty", "guest", project=BYSTANDER)
    incus("storage", "volume", "create", "default", "models", project=BYSTANDER)

    def now() -> list[str]:
        asked = (
            f"/1.0/projects/{BYSTANDER}",
            f"/1.0/networks/{BYSTANDER}",
            f"/1.0/profiles/default?project={BYSTANDER}",
            f"/1.0/instances/guest?project={BYSTANDER}",
            f"/1.0/storage-pools/default/volumes/custom/models?project={BYSTANDER}",
        )
        return [incus("query", path) for path in asked]

    yield now
    incus("delete", "guest", project=BYSTANDER)
    incus("storage", "volume", "delete", "default", "models", project=BYSTANDER)
    incus("project", "delete", BYSTANDER)
    incus("network", "delete", BYSTANDER)


@pytest.fixture(scope="session")
def stack(
    tmp_path_factory: pytest.TempPathFactory,
    bystander: Callable[[], list[str]],
) -> Iterator[Project]:
    """The shared stack; nothing of it stays."""
    before = bystander()
    made = Project(tmp_path_factory.mktemp("stack"), DOMAIN, SUBNET)
    yield made
    made.destroy()
    assert left_of(DOMAIN) == []
    assert bystander() == before


@pytest.fixture(scope="session")
def up(stack: Project) -> str:
    """The first `up` of the shared stack; what it said."""
    return stack.up()


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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test here is an end-to-end test."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("e2e")
