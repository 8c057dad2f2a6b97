"""One stack for all modules here: ``project``.

It is built once, and each test finds it as the first `up` left it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Iterator

import pytest

from tests.e2e.project import Project, left_of

DOMAIN, SUBNET = "stt-e2e-q", "10.213.150"


@pytest.fixture(scope="session")
def stack(
    tmp_path_factory: pytest.TempPathFactory, bystander: Callable[[], list[str]]
) -> Iterator[Project]:
    """The shared stack; nothing of it stays."""
    before = bystander()
    made = Project(tmp_path_factory.mktemp("stack"), DOMAIN, SUBNET)
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
