"""Servers that several tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.multilingual import SLOW, make_model
from tests.server.server import KEY, Running, running


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """English digits; asks for a key."""
    with running(tmp_path_factory.mktemp("server"), key=KEY, STT_UPLOAD_MB="1") as server:
        yield server


@pytest.fixture(scope="session")
def many_languages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows a hundred languages by name."""
    return make_model(tmp_path_factory.mktemp("model") / "multilingual")


@pytest.fixture(scope="session")
def slow_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that takes about a second for every window of 30 s."""
    return make_model(tmp_path_factory.mktemp("model") / "slow", SLOW)


@pytest.fixture(scope="session")
def slow(tmp_path_factory: pytest.TempPathFactory, slow_model: Path) -> Iterator[Running]:
    """A server whose answers take long enough to do something meanwhile."""
    with running(
        tmp_path_factory.mktemp("slow"), STT_MODEL_DIR=str(slow_model), STT_MODEL_ALIASES="[]"
    ) as server:
        yield server
