"""Environments side by side on one host: a change goes through staging, then to production."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.project import Project, left_of, light, request

DOMAIN, SUBNET, PORT = "stt-e2e-n", "10.213.25", 28400
LISTED = ["production", "staging"]


def stack(root: Path, environment: str) -> Project:
    """A stack of an environment; the topology is the same."""
    number = LISTED.index(environment)
    domain = DOMAIN if number == 0 else f"{DOMAIN}-{environment}"
    subnet = f"10.213.{25 + 32 * number}"
    written = DOMAIN, SUBNET
    made = Project(root / environment, domain, subnet, written=written, environments=LISTED)
    light(made)
    published = {
        "type": "proxy",
        "listen": f"tcp:127.0.0.1:{PORT}",
        "connect": "tcp:127.0.0.1:8000",
    }
    made.machines["gpu-server"]["devices"] = {"published": published}
    made.set(environment=environment)
    return made


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Project, Project]]:
    """Production and staging, up."""
    root = tmp_path_factory.mktemp("environments")
    stacks = stack(root, "production"), stack(root, "staging")
    try:
        for each in stacks:
            each.up()
        yield stacks
    finally:
        for each in stacks:
            each.pulumi("destroy")
    assert left_of(DOMAIN) == []


def commit(both: tuple[Project, Project], **settings: Any) -> None:
    """A change of both stacks' files."""
    for each in both:
        each.set(**settings)


def test_they_stand_side_by_side(both: tuple[Project, Project]) -> None:
    assert [each.outputs()["stt_url"] for each in both] == [
        "http://10.213.25.1:8000/v1",
        "http://10.213.57.1:8000/v1",
    ]
    for each, port in zip(both, (PORT, PORT + 100), strict=True):
        assert each.transcribe("hello_world").status == 200
        assert each.unchanged()
        assert request(f"http://127.0.0.1:{port}/").status == 200
    production, staging = (each.outputs()["stt_api_key"] for each in both)
    assert production != staging


def test_a_change_is_verified_in_staging_and_then_made_in_production(
    both: tuple[Project, Project],
) -> None:
    production, staging = both
    commit(both, quantization="float32", model="another")
    staging.up()
    assert staging.health() | {"STT_COMPUTE_TYPE": "float32", "STT_MODEL": "another"} == (
        staging.health()
    )
    assert production.health()["STT_MODEL"] == "light"
    production.up()
    assert production.health() == staging.health()


def test_a_change_that_does_not_work_ends_in_staging(both: tuple[Project, Project]) -> None:
    commit(both, model="broken")
    production, staging = both
    assert "this model does not load" in staging.fails()
    for each in both:
        assert each.health()["STT_MODEL"] == "another"
        assert each.transcribe("hello_world").status == 200
    commit(both, model="another")
    staging.up()
    assert production.unchanged()


def test_one_goes_and_the_other_stays(both: tuple[Project, Project]) -> None:
    production, staging = both
    staging.destroy()
    assert [path for path in left_of(DOMAIN) if "staging" in path or "net1-" in path] == []
    assert production.unchanged()
    assert production.transcribe("hello_world").status == 200
