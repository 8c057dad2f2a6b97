"""End-to-end tests: the real Incus of this machine, in a project and bridge of their own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.project import Project, incus, left_of, remove_leftovers, run

#: A name and addresses that nothing else on a host is likely to have.
DOMAIN, SUBNET = "stt-e2e-c", "10.213.42"


@pytest.fixture(scope="session", autouse=True)
def incus_ready() -> None:
    """The CLI, Incus, a pool and the image, as `make up` makes them ready."""
    root = Path(__file__).resolve().parents[2]
    for script in (["cli.sh"], ["incus.sh"], ["image.sh", "images:debian/12"]):
        done = run(str(root / "bootstrap" / script[0]), *script[1:])
        assert done.returncode == 0, done.stderr
    remove_leftovers("stt-e2e-")


BYSTANDER = "stt-e2e-other"


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


@pytest.fixture(scope="module")
def project(
    tmp_path_factory: pytest.TempPathFactory,
    bystander: Callable[[], list[str]],
) -> Iterator[Project]:
    """A stack that is up, built once a module; nothing of it stays."""
    before = bystander()
    stack = Project(tmp_path_factory.mktemp("project"), DOMAIN, SUBNET)
    try:
        yield stack
    finally:
        done = stack.pulumi("destroy")
    assert done.returncode == 0, done.stdout + done.stderr
    assert left_of(DOMAIN) == []
    assert bystander() == before


@pytest.fixture(scope="module")
def up(project: Project) -> str:
    """The first `up`; what it said."""
    return project.up()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test here is an end-to-end test."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("e2e")


os.environ.setdefault("PULUMI_SKIP_UPDATE_CHECK", "true")
