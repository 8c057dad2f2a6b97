"""``python3 -m stt_gateway FILE``: watch the servers until SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from pathlib import Path

from .settings import read_settings
from .watcher import Watcher

#: sysexits.h EX_CONFIG: systemd shows it as CONFIG.
EX_CONFIG = 78


async def watch(watcher: Watcher) -> None:
    """Watch until SIGTERM."""
    task = asyncio.ensure_future(watcher.run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


def main(arguments: list[str]) -> int:
    """Watch. Returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    try:
        settings = read_settings(Path(arguments[0]))
    except (IndexError, OSError, ValueError) as error:
        print(f"stt_gateway: {error or 'name the file of settings'}.", file=sys.stderr)
        return EX_CONFIG
    asyncio.run(watch(Watcher(settings)))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
