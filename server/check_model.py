"""Loads the model of the environment once and ends: whether it would run, beside what runs."""

from __future__ import annotations

import os
import sys

from recognizer import load_recognizer
from settings import SettingsError, read_settings


def main() -> int:
    """Load. Returns the exit status."""
    try:
        load_recognizer(read_settings(os.environ)).unload()
    except SettingsError as error:
        print(f"{error}.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
