"""For all tests: the garbage collector, seeds, samples, what runs together, what ran again."""

from __future__ import annotations

import gc
from collections import Counter

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from tests import seeds

#: The tests in this folder share what is slow to make.
_TOGETHER = "tests/e2e/shared_stack"
#: So many characters of a failure are shown of a test that was run again.
_LAST = 5000

gc.disable()  # until all tests are collected it would find nothing


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of a test that says ``sample``, the parameters after the first ones are a sweep."""
    seen: Counter[str] = Counter()
    for item in items:
        if sample := item.get_closest_marker("sample"):
            test = item.nodeid.partition("[")[0]
            seen[test] += 1
            if seen[test] > sample.args[0]:
                item.add_marker(pytest.mark.sweep)


def pytest_collection_finish() -> None:
    """Look for garbage only in what the tests make: what was imported for them stays."""
    gc.freeze()
    gc.set_threshold(20_000)
    gc.enable()


def pytest_report_header() -> str:
    """The seeds, where a run that is broken off has said them too."""
    return seeds.LINE


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was run again, whatever came of it; and the seeds: ``-q`` leaves out the header."""
    for report in terminalreporter.stats.get("rerun", []):
        terminalreporter.section(f"failed and run again: {report.nodeid}")
        terminalreporter.write_line(report.longreprtext[-_LAST:])
    terminalreporter.write_line(seeds.LINE)


class _Scheduling(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
    """A module's tests run in one process, and those of the folder too.

    ``--dist loadgroup``, which is meant for this, does nothing with pytest 9.2
    (github.com/pytest-dev/pytest-xdist/issues/1386).
    """

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith(f"{_TOGETHER}/"):
            return _TOGETHER
        return str(super()._split_scope(nodeid))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> _Scheduling | None:
    """For ``--dist loadfile``."""
    return _Scheduling(config, log) if config.getoption("dist") == "loadfile" else None
