"""The garbage collector, for all tests."""

from __future__ import annotations

import gc

gc.disable()  # until all tests are collected it would find nothing


def pytest_collection_finish() -> None:
    """Look for garbage only in what the tests make: what was imported for them stays."""
    gc.freeze()
    gc.set_threshold(20_000)
    gc.enable()
