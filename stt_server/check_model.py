"""``python -m stt_server.check_model``: load the model of the environment once, and end.

It says whether a model would run before the service that runs is touched.
"""

from __future__ import annotations

import os
import sys

from stt_server.recognizer import load_recognizer
from stt_server.settings import SettingsError, read_settings


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
